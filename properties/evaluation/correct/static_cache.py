"""The cache with room reserved beforehand: keys and values are written in place, and a mask hides what is not written yet."""

import torch
from torch import Tensor

from properties.evaluation.correct.cache import KVCache

ROOM = 4  # tokens that fit in at first; doubled when it is full


class Static:
    """Buffers of (b, h, room, d_k), of which the first `length` tokens are written."""

    def __init__(self, K: Tensor, V: Tensor) -> None:
        self.K, self.V = (torch.zeros(*x.shape[:2], ROOM, x.shape[-1], dtype=x.dtype) for x in (K, V))
        self.length = 0

    def append(self, K: Tensor, V: Tensor) -> None:
        """Write those of some more tokens into the next free places."""
        end = self.length + K.shape[2]
        while end > self.K.shape[2]:
            self.K, self.V = (torch.cat([x, torch.zeros_like(x)], dim=2) for x in (self.K, self.V))
        self.K[:, :, self.length : end] = K
        self.V[:, :, self.length : end] = V
        self.length = end

    def read(self) -> tuple[Tensor, Tensor]:
        """The whole buffers: the caller's mask knows how far they are written."""
        return self.K, self.V

    def cut(self, length: int) -> None:
        """What lies behind is free again."""
        self.length = length

    def pick(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.K, self.V = self.K[rows], self.V[rows]

    def join(self, other: "Static") -> None:
        """Put the rows of `other` behind one's own, both with as much room."""
        room = max(self.K.shape[2], other.K.shape[2])
        self.K, self.V = (
            torch.cat([torch.nn.functional.pad(x, (0, 0, 0, room - x.shape[2])) for x in pair])
            for pair in ((self.K, other.K), (self.V, other.V))
        )

    def copy(self) -> "Static":
        """The same in buffers of its own."""
        other = Static(self.K, self.V)
        other.K, other.V, other.length = self.K.clone(), self.V.clone(), self.length
        return other


class StaticCache(KVCache):
    """A cache whose layers keep what they have seen in static buffers."""

    store = Static


def kv_cache(source: Tensor, source_mask: Tensor | None = None, *, parameters, scale_embedding=True, **choices) -> KVCache:  # noqa: ANN001, ANN003
    """An empty cache for these sources."""
    cache = StaticCache(parameters, scale_embedding, choices)
    cache.reset(source, source_mask)
    return cache
