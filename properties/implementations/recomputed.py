"""The cache that caches nothing: it keeps the tokens and asks the whole model again. What `cached.Cache` means, in code."""

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
        """How many tokens each row has read."""
        return self.tokens.shape[1]

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        """Append the tokens; return the last k rows of logits."""
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
        return self._transformer(self.source, self.tokens, self.real, **self._model)[:, -tokens.shape[1] :]

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """Append one token; return the last row of logits."""
        return self.prefill(tokens[:, None])[:, 0]

    def rollback(self, length: int) -> None:
        """Drop the last tokens."""
        self.tokens = self.tokens[:, :length]

    def reorder(self, rows: np.ndarray) -> None:
        """Pick rows."""
        self.source, self.real, self.tokens = self.source[rows], self.real[rows], self.tokens[rows]

    def leave(self, rows: np.ndarray) -> None:
        """Keep the other rows."""
        self.reorder(np.delete(np.arange(len(self.source)), rows))

    def join(self, other: "Recomputed") -> None:
        """Stack both."""
        self.source = np.concatenate([self.source, other.source])
        self.real = np.concatenate([self.real, other.real])
        self.tokens = np.concatenate([self.tokens, other.tokens])

    def reset(self, source: np.ndarray, source_mask: np.ndarray | None = None) -> None:
        """Forget everything but the model."""
        self.source, self.tokens = source, np.zeros((len(source), 0), dtype=np.int64)
        self.real = np.ones(source.shape, dtype=bool) if source_mask is None else source_mask

    def copy(self) -> "Recomputed":
        """The same sources and tokens once more."""
        base = Recomputed(self._transformer, self.source, self.real, **self._model)
        base.tokens = self.tokens
        return base
