"""Writing token by token where rows have read different numbers of tokens: each has its own length, positions and last slot."""

from typing import Any

import torch
from torch import Tensor

from properties.evaluation.correct.cache import Growing, KVCache
from properties.evaluation.correct.embedding import embedding, encoding_of
from properties.evaluation.correct.model import output_projection
from properties.evaluation.correct.residual_norm import layer_norm


class Slotted(Growing):
    """The keys and values that one layer has seen, each token in the slot of its position."""

    slots = 512

    def __init__(self, K: Tensor, V: Tensor) -> None:
        self.K, self.V = (X.new_zeros(*X.shape[:2], self.slots, X.shape[-1]) for X in (K, V))

    def write(self, places: Tensor, K: Tensor, V: Tensor) -> None:
        """Row r's tokens at its own places, (b, k); in new tensors, since copies share them."""
        at = places[:, None, :, None].expand_as(K)
        self.K, self.V = self.K.scatter(2, at, K), self.V.scatter(2, at, V)

    def copy(self) -> "Slotted":
        """The same in another object."""
        other = Slotted(self.K, self.V)
        other.K, other.V = self.K, self.V
        return other


class UnevenCache(KVCache):
    """What is beyond a row's length was never read, or is forgotten: it is written over before any token sees it."""

    store = Slotted

    def reset(self, source: Tensor, source_mask: Tensor | None = None) -> None:
        """No row has read a token."""
        super().reset(source, source_mask)
        self.lengths = torch.zeros(len(source), dtype=torch.int64)

    def prefill(self, tokens: Tensor) -> Tensor:
        """All k tokens of every row."""
        return self.prefill_some(tokens, torch.full((len(tokens),), tokens.shape[1]))

    def prefill_some(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """All are computed; of a row only the first `counts` are kept."""
        table = self.parameters["target_embedding"]
        places = self.lengths[:, None] + torch.arange(tokens.shape[1])
        X = embedding(tokens, table=table, scale=self.scale)
        X = X + encoding_of(places.flatten(), table.shape[-1]).to(X.dtype).unflatten(0, places.shape)
        for layer, own, cross in zip(self.parameters["decoder"], self.own, self.cross, strict=True):
            X = self._through(X, layer, own, cross)
        self.lengths = self.lengths + counts
        self.length = int(self.lengths.max())
        final = self.parameters.get("decoder_norm")
        X = X if final is None else layer_norm(X, **final, eps=self.choices.get("eps", 1e-5))
        W = table.mT if self.parameters.get("W_out") is None else self.parameters["W_out"]
        return output_projection(X, W=W, b=self.parameters.get("b_out"))

    def rollback(self, length: int) -> None:
        """A shorter row stays as it is."""
        self.lengths = self.lengths.clamp(max=length)
        self.length = int(self.lengths.max())

    def reorder(self, rows: Tensor) -> None:
        """Lengths go with their rows."""
        super().reorder(rows)
        self.lengths = self.lengths[rows]
        self.length = int(self.lengths.max())

    def join(self, other: Any) -> None:
        """Its lengths too."""
        super().join(other)
        self.lengths = torch.cat([self.lengths, other.lengths])

    def copy(self) -> "UnevenCache":
        """A second cache in the same state."""
        other: Any = super().copy()
        other.lengths = self.lengths
        return other

    def _look_back(self, Z: Tensor, layer: dict[str, Any], own: Slotted) -> Tensor:
        places = self.lengths[:, None] + torch.arange(Z.shape[1])
        own.write(places, *self._project(Z, layer["self_attention"]))
        past = torch.arange(own.slots) <= places[:, None, :, None]
        return self._attend(Z, own.K, own.V, past, layer["self_attention"])


def kv_cache(
    source: Tensor, source_mask: Tensor | None = None, *, parameters: dict[str, Any], scale_embedding: bool = True, **choices: Any
) -> UnevenCache:
    """An empty cache for these sources."""
    cache = UnevenCache(parameters, scale_embedding, choices)
    cache.reset(source, source_mask)
    return cache
