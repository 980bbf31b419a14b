"""The K/V cache: what the decoder need not compute again while a batch of targets grows token by token.

The keys and values of tokens already read are kept in memory allocated beforehand; those of the encoder's output are computed
once. All rows of a cache have read the same number of tokens. The oracle has no such file: it recomputes everything.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from optimized.attention import empty_hidden
from optimized.multi_head import KeysAndValues


@dataclass
class Cache:
    """One entry per decoder layer: `own` (b, h, capacity, d_k), `length` tokens of it in use, and `memory` (b, h, m, d_k).

    `padded` tells whether `memory_mask` hides anything; what it hides of `memory` is zeros (see `attention.empty_hidden`).
    """

    own: list[KeysAndValues]
    memory: list[KeysAndValues]
    memory_mask: Bool[Tensor, "b 1 1 m"]
    padded: bool
    length: int = 0

    @classmethod
    def of(cls, memory: list[KeysAndValues], source_mask: Bool[Tensor, "b m"], capacity: int) -> "Cache":
        """An empty cache with room for `capacity` tokens (more is made when needed)."""

        def room(offered: Tensor) -> Tensor:
            b, h, _, width = offered.shape
            return offered.new_empty(b, h, max(capacity, 1), width)

        own, mask, padded = [(room(K), room(V)) for K, V in memory], source_mask[:, None, None, :], not bool(source_mask.all())
        memory = [(K.contiguous(), V.contiguous()) for K, V in memory]  # every step reads them: head by head, in one go
        return cls(own, [empty_hidden(K, V, mask) for K, V in memory] if padded else memory, mask, padded)

    def keep(self, layer: int, new: KeysAndValues) -> KeysAndValues:
        """Write what new tokens offer behind what is known in this layer, and give back all of it.

        `length` stays: it moves once for all layers, when the last has kept its part.
        """
        end = self.length + new[0].shape[-2]
        self.reserve(end)
        for kept, X in zip(self.own[layer], new, strict=True):
            kept[..., self.length : end, :] = X
        K, V = self.own[layer]
        return K[..., :end, :], V[..., :end, :]

    def rollback(self, length: int) -> None:
        """Forget all tokens but the first `length`. Raises ValueError for more tokens than there are."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length: expected 0 to {self.length} (the tokens read so far), got {length}")
        self.length = length

    def take(self, rows: Int[Tensor, " rows"]) -> None:
        """Let row i be what row rows[i] was; the number of rows may change. Raises ValueError for a row that does not exist."""
        b = len(self.memory_mask)
        if ((rows < 0) | (rows >= b)).any():
            raise ValueError(f"rows: expected numbers from 0 to {b - 1} (the cache has {b} rows), got {rows.tolist()}")
        self.own = [(K[rows], V[rows]) for K, V in self.own]
        self.memory = [(K[rows], V[rows]) for K, V in self.memory]
        self.memory_mask = self.memory_mask[rows]

    def join(self, other: "Cache") -> None:
        """Take over the rows of `other` behind one's own. Raises ValueError unless both are as long and their sources as wide."""
        if other.length != self.length:
            raise ValueError(f"other: expected a cache that has read {self.length} tokens, got one that has read {other.length}")
        widths = self.memory_mask.shape[-1], other.memory_mask.shape[-1]
        if widths[0] != widths[1]:
            raise ValueError(f"other: expected sources filled up to {widths[0]} tokens, got {widths[1]}")

        def used(offered: Tensor) -> Tensor:
            return offered[..., : self.length, :]

        both = list(zip(self.own, other.own, strict=True))
        self.own = [(torch.cat([used(K), used(K_2)]), torch.cat([used(V), used(V_2)])) for (K, V), (K_2, V_2) in both]
        both = list(zip(self.memory, other.memory, strict=True))
        self.memory = [(torch.cat([K, K_2]), torch.cat([V, V_2])) for (K, V), (K_2, V_2) in both]
        self.memory_mask, self.padded = torch.cat([self.memory_mask, other.memory_mask]), self.padded or other.padded

    def copy(self) -> "Cache":
        """A second cache in the same state; neither knows what the other does from now on."""
        other = Cache(self.own, self.memory, self.memory_mask, self.padded, self.length)
        other.take(torch.arange(len(self.memory_mask), device=self.memory_mask.device))
        return other

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens, if there is not enough: at least twice as much as there was."""
        capacity = self.own[0][0].shape[-2]
        if tokens <= capacity:
            return

        def larger(kept: Tensor) -> Tensor:
            b, h, _, width = kept.shape
            room = kept.new_empty(b, h, max(tokens, 2 * capacity), width)
            room[..., : self.length, :] = kept[..., : self.length, :]
            return room

        self.own = [(larger(K), larger(V)) for K, V in self.own]
