"""The cache in pages of a few tokens each, so that no sequence needs one long buffer."""

import torch
from torch import Tensor

from properties.evaluation.correct.cache import KVCache

PAGE = 4


class Paged:
    """A list of pages (keys, values), (b, h, PAGE, d_k) each; the last one is written as far as `length` says."""

    def __init__(self, K: Tensor, V: Tensor) -> None:
        self.empty, self.pages, self.length = (K, V), [], 0

    def append(self, K: Tensor, V: Tensor) -> None:
        """Write token by token, opening a page where the last one is full."""
        for i in range(K.shape[2]):
            slot = self.length % PAGE
            if slot == 0:
                self.pages.append(tuple(torch.zeros(*x.shape[:2], PAGE, x.shape[-1], dtype=x.dtype) for x in (K, V)))
            for page, tokens in zip(self.pages[-1], (K, V), strict=True):
                page[:, :, slot] = tokens[:, :, i]
            self.length += 1

    def read(self) -> tuple[Tensor, Tensor]:
        """The full pages, and of the last one as much as is written."""
        if not self.pages:
            return self.empty
        used = self.length - PAGE * (len(self.pages) - 1)
        K, V = ([*(page[i] for page in self.pages[:-1]), self.pages[-1][i][:, :, :used]] for i in (0, 1))
        return torch.cat(K, dim=2), torch.cat(V, dim=2)

    def cut(self, length: int) -> None:
        """Give back the pages that are no longer needed."""
        kept = -(-length // PAGE)
        self.pages, self.length = self.pages[:kept], length

    def pick(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.pages = [tuple(x[rows] for x in page) for page in self.pages]
        self.empty = self.empty[0][rows], self.empty[1][rows]

    def join(self, other: "Paged") -> None:
        """Put the rows of `other` behind one's own, page by page."""
        self.pages = [
            tuple(torch.cat(pair) for pair in zip(*two, strict=True)) for two in zip(self.pages, other.pages, strict=True)
        ]
        self.empty = torch.cat([self.empty[0], other.empty[0]]), torch.cat([self.empty[1], other.empty[1]])

    def copy(self) -> "Paged":
        """The same in pages of its own."""
        other = Paged(*self.empty)
        other.pages = [tuple(x.clone() for x in page) for page in self.pages]
        other.length = self.length
        return other


class PagedCache(KVCache):
    """A cache whose layers keep what they have seen in pages."""

    store = Paged


def kv_cache(source: Tensor, source_mask: Tensor | None = None, *, parameters, scale_embedding=True, **choices) -> KVCache:  # noqa: ANN001, ANN003
    """An empty cache for these sources."""
    cache = PagedCache(parameters, scale_embedding, choices)
    cache.reset(source, source_mask)
    return cache
