"""The K/V cache of an implementation: what it must answer, and how a program of operations is played on it.

An implementation that writes token by token offers the step `kv_cache`: a method that takes a source and a model and gives a
`Cache`. Nobody compares what a cache holds; what counts is the logits it answers, which must be those of the same
implementation's whole model, recomputed from the tokens of each row so far.

A cache of attention alone is the step `attention_cache`: it gives an `AttentionCache`, which is handed queries, keys and values.
What it answers must be attention of each query on all keys and values of its row so far.

A program is plain data, so that it crosses into an implementation's process as one call, and prints as it is:

    [[0, "prefill", tokens], [0, "copy"], [1, "step", tokens], [0, "rollback", 2], …]

The first entry names the branch: 0 is the cache that was started, each `copy` and each `request` adds one. A `request` is a
second cache of the same model, for a source of its own, while the first is still in use. This file stands alone (standard library
only): an implementation's process, which imports none of our packages, loads it by its path.
"""

from collections.abc import Callable
from typing import Any, Protocol

CACHES = ("kv_cache", "attention_cache")
"""The steps that give a cache, on which a program is played."""

CHANGES = ("rollback", "reorder", "leave", "join", "reset", "copy")
UNEVEN = ("prefill_some", "attend_some")
OPTIONAL = (*CHANGES, *UNEVEN)
"""Operations that a cache may lack; what it lacks is not asked of it."""


class Cache(Protocol):
    """What `kv_cache(source (b, m), source_mask (b, m) or None, *, parameters, h, norm, activation, eps, scale_embedding)` gives.

    Arrays are of the implementation's own kind: token ids and rows int64, logits of the dtype of its parameters. All rows of a
    cache have read the same number of tokens, unless it has `prefill_some`. Only `prefill` and `step` are required.
    """

    length: int
    """How many tokens each row has read: 0 at first; where rows differ, the most. Optional."""

    def prefill(self, tokens: Any) -> Any:
        """Read k ≥ 1 more tokens in every row, (b, k); return the logits after each of them, (b, k, vocab)."""
        ...

    def step(self, tokens: Any) -> Any:
        """Read one more token in every row, (b,); return the logits after it, (b, vocab)."""
        ...

    def prefill_some(self, tokens: Any, counts: Any) -> Any:
        """Read in row i the first counts[i] ≥ 0 of its tokens, (b, k) and (b,); of (b, k, vocab) what is behind is anybody's.

        In some row there is one to read. From then on rows differ in length, and each reads on from its own.
        """
        ...

    def rollback(self, length: int) -> None:
        """Forget all tokens but the first `length` of every row, 0 ≤ length ≤ self.length; a shorter row stays as it is."""
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


class AttentionCache(Protocol):
    """What `attention_cache(K (b, h, m, d_k), V (b, h, m, d_v), *, capacity, window)` gives: it holds these m keys and values.

    `capacity` is how many tokens a row will have at most, `window` how many a query sees, its own among them: options, handed over
    where they are among the parameters. Arrays are of the implementation's own kind and of the dtype under test, rows int64. Only
    `attend` is required. The changes are those of `Cache`: `rollback`, `reorder`, `leave`, `join`, `copy`; and `reset`, which
    begins with other keys and values. Nothing is rolled back once a row has as many tokens as the window.

    What cannot be done raises, and leaves the cache as it was: more tokens than `capacity`, rows and lengths that are not there.
    Instead, rows may be counted from the end, as Python does, and of a length or a count what is beyond an end may be the end.
    """

    length: int
    """How many tokens each row has; where rows differ, the most. Optional."""

    def attend(self, Q: Any, K: Any, V: Any) -> Any:
        """Append the keys and values of k ≥ 1 tokens to every row, (b, h, k, ·); what their queries get, (b, h, k, d_v): causal."""
        ...

    def attend_some(self, Q: Any, K: Any, V: Any, counts: Any) -> Any:
        """The same of the first counts[i] ≥ 0 tokens of row i; what stands behind them, in and out, is anybody's."""
        ...


def play(start: Callable[..., Any], *given: Any, program: list[list[Any]], **model: Any) -> dict[str, Any]:
    """Start a cache and play `program` on it.

    Returns `operations`, the optional ones the cache has, and `results`: for every operation its answer (None where it gives none)
    and the length of the branch afterwards (None where the cache does not tell). `refused` are the places of those operations that
    were only tried, `[0, "try", "reorder", rows]`, and raised: the program goes on behind them.

    The first two operands of `join` are what another cache starts with, the rest what it has read when its rows are taken over
    (tokens (b, k); or Q, K and V); its answer is that other cache's. Those of `request` are what a second cache starts with.
    """
    branches = [start(*given, **model)]

    def done(branch: int, operation: str, *operands: Any) -> Any:
        cache = branches[branch]
        if operation == "copy":
            return branches.append(cache.copy())
        if operation == "request":
            return branches.append(start(*operands, **model))
        if operation == "join":
            other, read = start(*operands[:2], **model), operands[2:]
            answer = None if 0 in read[0].shape else (other.prefill if hasattr(other, "prefill") else other.attend)(*read)
            cache.join(other)
            return answer
        answer = getattr(cache, operation)(*operands)
        return answer if operation in ("prefill", "step", "attend", "prefill_some", "attend_some") else None

    results, refused = [], []
    for place, (branch, operation, *operands) in enumerate(program):
        answer = None
        if operation != "try":
            answer = done(branch, operation, *operands)
        else:
            try:
                answer = done(branch, *operands)
            except Exception:  # of whatever kind: it says no
                refused.append(place)
        results.append([answer, getattr(branches[branch], "length", None)])
    operations = [name for name in OPTIONAL if callable(getattr(branches[0], name, None))]
    return {"operations": operations, "results": results, "refused": refused}
