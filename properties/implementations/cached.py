"""The K/V cache of an implementation: what it must answer, and how a program of operations is played on it.

An implementation that writes token by token offers the step `kv_cache`: a method that takes a source and a model and gives a
`Cache`. Nobody compares what a cache holds; what counts is the logits it answers, which must be those of the same
implementation's whole model, recomputed from the tokens of each row so far.

A program is plain data, so that it crosses into an implementation's process as one call, and prints as it is:

    [[0, "prefill", tokens], [0, "copy"], [1, "step", tokens], [0, "rollback", 2], …]

The first entry names the branch: 0 is the cache that was started, each `copy` and each `request` adds one. A `request` is a
second cache of the same model, for a source of its own, while the first is still in use. This file stands alone (standard library
only): an implementation's process, which imports none of our packages, loads it by its path.
"""

from collections.abc import Callable
from typing import Any, Protocol

OPTIONAL = ("rollback", "reorder", "leave", "join", "reset", "copy")
"""Operations that a cache may lack; what it lacks is not asked of it."""


class Cache(Protocol):
    """What `kv_cache(source (b, m), source_mask (b, m) or None, *, parameters, h, norm, activation, eps, scale_embedding)` gives.

    Arrays are of the implementation's own kind: token ids and rows int64, logits of the dtype of its parameters. All rows of a
    cache have read the same number of tokens. Only `prefill` and `step` are required.
    """

    length: int
    """How many tokens each row has read: 0 at first. Optional."""

    def prefill(self, tokens: Any) -> Any:
        """Read k ≥ 1 more tokens in every row, (b, k); return the logits after each of them, (b, k, vocab)."""
        ...

    def step(self, tokens: Any) -> Any:
        """Read one more token in every row, (b,); return the logits after it, (b, vocab)."""
        ...

    def rollback(self, length: int) -> None:
        """Forget all tokens but the first `length` of every row, 0 ≤ length ≤ self.length."""
        ...

    def reorder(self, rows: Any) -> None:
        """Let row i be what row rows[i] was, its source too; (b,), and a row may come twice or not at all (beam search)."""
        ...

    def leave(self, rows: Any) -> None:
        """Let these rows go; the others close up in their order. At least one row stays."""
        ...

    def join(self, other: "Cache") -> None:
        """Take over the rows of `other`, behind one's own: a cache of this model, as many tokens long, its source as wide."""
        ...

    def reset(self, source: Any, source_mask: Any = None) -> None:
        """Start anew with other sources, of any number and width, as a new cache of the same model would."""
        ...

    def copy(self) -> "Cache":
        """Give a second cache in the same state; from now on neither knows what the other does."""
        ...


def play(
    kv_cache: Callable[..., Any], source: Any, source_mask: Any = None, *, program: list[list[Any]], **model: Any
) -> dict[str, Any]:
    """Start a cache and play `program` on it.

    Returns `operations`, the optional ones the cache has, and `results`: for every operation its logits (None where it gives none)
    and the length of the branch afterwards (None where the cache does not tell).

    The operands of `join` are the source, its real tokens and the tokens (b, k) that another cache has read when its rows are taken
    over; its logits are what that other cache answered. Those of `request` are the source of the second cache and its real tokens.
    """
    branches = [kv_cache(source, source_mask, **model)]
    results = []
    for branch, operation, *operands in program:
        cache, logits = branches[branch], None
        if operation == "copy":
            branches.append(cache.copy())
        elif operation == "request":
            branches.append(kv_cache(*operands, **model))
        elif operation == "join":
            *other_source, tokens = operands
            other = kv_cache(*other_source, **model)
            logits = other.prefill(tokens) if tokens.shape[1] else None
            cache.join(other)
        elif operation in ("prefill", "step"):
            logits = getattr(cache, operation)(*operands)
        else:
            getattr(cache, operation)(*operands)
        results.append([logits, getattr(cache, "length", None)])
    return {"operations": [name for name in OPTIONAL if callable(getattr(branches[0], name, None))], "results": results}
