"""The caches that cache nothing: each keeps what it was handed and asks again. What `cached` means by a cache, in code."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Recomputed:
    """A `Cache` over any NumPy `transformer`; nothing it holds is ever written into."""

    def __init__(
        self, transformer: Callable[..., np.ndarray], source: np.ndarray, source_mask: np.ndarray | None = None, **model: Any
    ) -> None:
        self._transformer, self._model = transformer, model
        self.reset(source, source_mask)

    @property
    def length(self) -> int:
        """How many tokens the longest row has read."""
        return self.tokens.shape[1]

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        """All k tokens of every row."""
        return self._read(tokens, np.full(len(tokens), tokens.shape[1]))

    def prefill_some(self, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Of each row the first tokens."""
        return self._read(tokens, counts)

    def _read(self, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Append them to their rows; of the logits those of what was read. What fills up a row comes later than all of them."""
        lengths = self.lengths + counts
        filled = np.zeros((len(tokens), lengths.max()), dtype=np.int64)
        for r, (start, stop) in enumerate(zip(self.lengths, lengths, strict=True)):
            filled[r, :stop] = np.append(self.tokens[r, :start], tokens[r, : counts[r]])
        logits = self._transformer(self.source, filled, self.real, **self._model)
        answers = np.zeros((*tokens.shape, logits.shape[-1]), dtype=logits.dtype)
        for r, (start, count) in enumerate(zip(self.lengths, counts, strict=True)):
            answers[r, :count] = logits[r, start : start + count]
        self.tokens, self.lengths = filled, lengths
        return answers

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """Append one token; return the last row of logits."""
        return self.prefill(tokens[:, None])[:, 0]

    def rollback(self, length: int) -> None:
        """Drop the last tokens."""
        self.tokens, self.lengths = self.tokens[:, :length], np.minimum(self.lengths, length)

    def reorder(self, rows: np.ndarray) -> None:
        """Pick rows."""
        self.source, self.real, self.lengths = self.source[rows], self.real[rows], self.lengths[rows]
        self.tokens = self.tokens[rows, : self.lengths.max()]

    def leave(self, rows: np.ndarray) -> None:
        """Keep the other rows."""
        self.reorder(np.delete(np.arange(len(self.source)), rows))

    def join(self, other: "Recomputed") -> None:
        """Stack both."""
        self.source = np.concatenate([self.source, other.source])
        self.real = np.concatenate([self.real, other.real])
        self.tokens, self.lengths = np.concatenate([self.tokens, other.tokens]), np.concatenate([self.lengths, other.lengths])

    def reset(self, source: np.ndarray, source_mask: np.ndarray | None = None) -> None:
        """Forget everything but the model."""
        self.source, self.tokens = source, np.zeros((len(source), 0), dtype=np.int64)
        self.lengths = np.zeros(len(source), dtype=np.int64)
        self.real = np.ones(source.shape, dtype=bool) if source_mask is None else source_mask

    def copy(self) -> "Recomputed":
        """The same sources and tokens once more; no array is ever written into."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__
        return other


class RecomputedAttention:
    """An `AttentionCache` over any NumPy `attention`, row by row: of each the keys and values so far, (h, length, ·)."""

    def __init__(
        self,
        attention: Callable[..., np.ndarray],
        K: np.ndarray,
        V: np.ndarray,
        *,
        capacity: int | None = None,
        window: int | None = None,
    ) -> None:
        self._attention, self._capacity, self._window = attention, capacity, window
        self.reset(K, V)

    @property
    def length(self) -> int:
        """How many tokens the longest row has."""
        return max(K.shape[1] for K, _ in self.rows)

    def reset(self, K: np.ndarray, V: np.ndarray) -> None:
        """Begin with other keys and values."""
        self.rows = list(zip(K, V, strict=True))

    def attend(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
        """All k tokens of every row."""
        return self.attend_some(Q, K, V, np.full(len(Q), Q.shape[2]))

    def attend_some(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Attention on all that a row has by then, under a causal mask; zeros behind."""
        if len(Q) != len(self.rows):
            raise ValueError(f"Q: expected {len(self.rows)} rows, got {len(Q)}")
        if ((counts < 0) | (counts > Q.shape[2])).any():
            raise ValueError(f"counts: expected 0 to {Q.shape[2]}, got {list(counts)}")
        answers = np.zeros((*Q.shape[:3], V.shape[-1]), dtype=Q.dtype)
        rows = list(self.rows)
        for r, count in enumerate(counts):
            handed = zip(self.rows[r], (K[r], V[r]), strict=True)
            keys, values = (np.concatenate([old, new[:, :count]], axis=1) for old, new in handed)
            rows[r] = keys, values
            m = keys.shape[1]
            if self._capacity is not None and m > self._capacity:
                raise ValueError(f"row {r}: expected at most {self._capacity} tokens, got {m}")
            if count:
                mask = seen(m, self._window)[m - count :]
                answers[r, :, :count] = self._attention(Q[r : r + 1, :, :count], keys[None], values[None], mask)[0]
        self.rows = rows
        return answers

    def rollback(self, length: int) -> None:
        """Drop the last tokens."""
        if length < 0:
            raise ValueError(f"length: expected at least 0, got {length}")
        self.rows = [(K[:, :length], V[:, :length]) for K, V in self.rows]

    def reorder(self, rows: np.ndarray) -> None:
        """Pick rows."""
        self.rows = [self.rows[r] for r in rows]

    def leave(self, rows: np.ndarray) -> None:
        """Keep the other rows."""
        self.reorder(np.delete(np.arange(len(self.rows)), rows))

    def join(self, other: "RecomputedAttention") -> None:
        """Stack both."""
        self.rows = [*self.rows, *other.rows]

    def copy(self) -> "RecomputedAttention":
        """The same rows once more; none is ever written into."""
        other = object.__new__(RecomputedAttention)
        other.__dict__ |= self.__dict__ | {"rows": list(self.rows)}
        return other


def seen(m: int, window: int | None) -> np.ndarray:
    """Which of m tokens each of them sees: none that comes later, and of the others the last `window`."""
    mask = np.tri(m, m, dtype=bool)
    return mask if window is None else mask & ~np.tri(m, m, -window, dtype=bool)
