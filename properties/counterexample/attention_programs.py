"""Programs of operations on a cache of attention: what each row must hold after one, and what it was answered on the way.

A program is what `properties.implementations.cached` says it is. The model of a cache is a list of rows, and of a row what was
handed over for it: no slot, no page, no memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Program = list[list[Any]]
BRANCHING = ("copy", "request")  # operations that add a branch


@dataclass(frozen=True)
class Row:
    """One row of a cache: what it was handed, (h, length, ·), and what was answered. The first `begun` tokens had no queries."""

    Q: np.ndarray
    K: np.ndarray
    V: np.ndarray
    answers: np.ndarray
    begun: int

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return self.K.shape[1]

    def reading(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, answers: np.ndarray) -> "Row":
        """The row with these tokens behind its own."""
        own = (self.Q, self.K, self.V, self.answers)
        both = [np.concatenate(parts, axis=1) for parts in zip(own, (Q, K, V, answers), strict=True)]
        return Row(both[0], both[1], both[2], both[3], self.begun)

    def first(self, length: int) -> "Row":
        """The row when it had `length` tokens; a shorter one as it is."""
        Q, K, V, answers = (X[:, :length] for X in (self.Q, self.K, self.V, self.answers))
        return Row(Q, K, V, answers, min(self.begun, length))


Branch = tuple[Row, ...]


def begun(K: np.ndarray, V: np.ndarray) -> Branch:
    """A cache that begins with these keys and values, (b, h, m, ·)."""
    return tuple(Row(np.full(k.shape, np.nan), k, v, np.full(v.shape, np.nan), k.shape[1]) for k, v in zip(K, V, strict=True))


def followed(branches: Sequence[Branch], operation: list[Any], answers: np.ndarray | None) -> list[Branch]:
    """The branches after one operation, to which `answers`, (b, h, k, d_v), came: not yet, if None."""
    which, name, *operands = operation
    old = branches[which]
    match name:
        case "attend" | "attend_some":
            new = _reading(old, operands, answers)
        case "rollback":
            new = tuple(row.first(operands[0]) for row in old)
        case "reorder":
            new = tuple(old[r] for r in operands[0])
        case "leave":
            new = tuple(row for r, row in enumerate(old) if r not in operands[0])
        case "join":
            new = (*old, *_reading(begun(*operands[:2]), operands[2:], answers))
        case "reset":
            new = begun(*operands)
        case "request":
            return [*branches, begun(*operands)]
        case _:
            return [*branches, old]
    return [new if i == which else branch for i, branch in enumerate(branches)]


def _reading(rows: Branch, operands: list[Any], answers: np.ndarray | None) -> Branch:
    """The rows once each has read the tokens of Q, K, V; or of them as many as it is told to."""
    Q, K, V, *counts = operands
    if answers is None:
        answers = np.full((*Q.shape[:3], V.shape[-1]), np.nan)
    read = counts[0] if counts else np.full(len(Q), Q.shape[2])
    return tuple(row.reading(*(X[r, :, : read[r]] for X in (Q, K, V, answers))) for r, row in enumerate(rows))
