"""A cache of attention that is handed keys and values: slots for each row, or a ring of them where there is a window."""

import copy
import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


class AttentionCache:
    """Position p of a row lies in slot p mod the number of slots; slots are written in place."""

    def __init__(self, K: Tensor, V: Tensor, capacity: int, window: int | None) -> None:
        self.slots, self.window = capacity if window is None else window, window
        self.reset(K, V)

    def reset(self, K: Tensor, V: Tensor) -> None:
        """Begin with other keys and values."""
        if self.window is None and K.shape[2] > self.slots:
            raise ValueError(f"expected at most {self.slots} tokens to begin with, got {K.shape[2]}")
        self.lengths = torch.zeros(len(K), dtype=torch.int64)
        self.K, self.V = (X.new_zeros(*X.shape[:2], self.slots, X.shape[-1]) for X in (K, V))
        for i in range(K.shape[2]):
            self.append(K[:, :, i], V[:, :, i], torch.ones(len(K), dtype=torch.bool))

    @property
    def length(self) -> int:
        """How many tokens the longest row has."""
        return int(self.lengths.max())

    def append(self, K: Tensor, V: Tensor, going: Tensor) -> None:
        """One token more in the rows that go on."""
        slots = self.lengths % self.slots
        rows = going.nonzero()[:, 0]
        self.K[rows, :, slots[rows]], self.V[rows, :, slots[rows]] = K[rows], V[rows]
        self.lengths = self.lengths + going

    def attend(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """All k tokens of every row."""
        return self.attend_some(Q, K, V, torch.full((len(Q),), Q.shape[2]))

    def attend_some(self, Q: Tensor, K: Tensor, V: Tensor, counts: Tensor) -> Tensor:
        """Token by token: written, and asked. What cannot be done is refused before anything is written."""
        if bool((counts < 0).any()) or bool((counts > Q.shape[2]).any()):
            raise ValueError(f"counts: expected 0 to {Q.shape[2]}, got {counts.tolist()}")
        if self.window is None and bool((self.lengths + counts > self.slots).any()):
            raise ValueError(f"expected at most {self.slots} tokens in a row")
        output = Q.new_zeros(*Q.shape[:3], V.shape[-1])
        for i in range(Q.shape[2]):
            going = counts > i
            self.append(K[:, :, i], V[:, :, i], going)
            for r in going.nonzero()[:, 0].tolist():
                output[r, :, i] = self.answer(Q[r, :, i], r)
        return output

    def answer(self, q: Tensor, r: int) -> Tensor:
        """Attention of one query on what its row holds."""
        held = min(int(self.lengths[r]), self.slots)
        k, v = wide(self.K[r, :, :held]), wide(self.V[r, :, :held])
        scores = wide(q)[:, None] @ k.mT / math.sqrt(q.shape[-1])
        return (softmax(scores) @ v)[:, 0].to(q.dtype)

    def rollback(self, length: int) -> None:
        """What is behind is written over by and by."""
        if length < 0:
            raise ValueError(f"length: expected at least 0, got {length}")
        self.lengths = self.lengths.clamp(max=length)

    def reorder(self, rows: Tensor) -> None:
        """Slots and lengths change places."""
        self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]

    def leave(self, rows: Tensor) -> None:
        """The others close up."""
        staying = torch.ones(len(self.lengths), dtype=torch.bool)
        staying[rows] = False
        self.reorder(staying.nonzero()[:, 0])

    def join(self, other: "AttentionCache") -> None:
        """Its rows behind one's own."""
        self.K, self.V = torch.cat([self.K, other.K]), torch.cat([self.V, other.V])
        self.lengths = torch.cat([self.lengths, other.lengths])

    def copy(self) -> "AttentionCache":
        """Slots of its own."""
        return copy.deepcopy(self)


def attention_cache(K: Tensor, V: Tensor, *, capacity: int = 64, window: int | None = None) -> AttentionCache:
    """A cache that holds these."""
    return AttentionCache(K, V, capacity, window)
