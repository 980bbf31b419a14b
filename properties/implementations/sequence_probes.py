"""Questions that show the conventions of log-sum-exp, packed, paged and cached attention, for `convention_probes`."""

from typing import TYPE_CHECKING

import numpy as np

from properties.implementations.conventions import LOWEST

if TYPE_CHECKING:
    from properties.implementations.impl import Impl

REFUSED = 0.0  # what a probe gives where what it asks for is refused


def lengths_of(queries: list[int], keys: list[int]) -> dict[str, np.ndarray]:
    """Cumulative lengths as the arguments of packed attention."""
    return {"cu_seqlens_q": np.array(queries), "cu_seqlens_k": np.array(keys)}


def log_of_two(impl: "Impl", _: str) -> float:
    """The log-sum-exp of two scores of 0."""
    return float(impl.log_sum_exp(np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 2, 1))).item())


def log_of_nothing(impl: "Impl", _: str) -> float:
    """Which kind of number comes for a row in which nothing may be attended to: the place of its choice; NaN for another."""
    got = float(impl.log_sum_exp(np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 2, 1)), np.zeros((1, 2), dtype=bool)).item())
    kinds = (got == -np.inf, got == np.inf, np.isnan(got), np.isfinite(got) and got < LOWEST)
    return float(kinds.index(True)) if any(kinds) else np.nan


def without_keys(impl: "Impl", step: str) -> float:
    """What a query without keys receives beside one that has some: 0, NaN, or 2 for anything else in any of these questions."""
    if step == "paged_attention":
        pages = np.ones((2, 2, 1, 1))
        args = np.ones((2, 1, 2, 1)), pages, pages
        got = [
            impl.paged_attention(*args, block_table=np.array([[0], [1]]), lengths=np.array([2, length]))[1, :, : 2 - length]
            for length in (0, 1)
        ]
    elif step == "cached_attention":
        ones = np.ones((2, 1, 2, 1))
        got = [impl.cached_attention(ones, ones, ones, lengths=np.array([2, length]))[1, :, : 2 - length] for length in (0, 1)]
    else:
        one, two = np.ones((1, 1, 1)), np.ones((2, 1, 1))
        got = [impl.packed_attention(two, one, one, **lengths_of([0, 1, 2], [0, 1, 1]))[1]]
        if impl.conventions.causal_alignment == "bottom_right" and impl.offers("packed_attention.causal"):
            got.append(impl.packed_attention(two, one, one, **lengths_of([0, 2], [0, 1]), causal=True)[0])
    numbers = np.concatenate([each.ravel() for each in got])
    return 0.0 if (numbers == 0).all() else np.nan if np.isnan(numbers).all() else 2.0


def impossible(impl: "Impl", step: str) -> float:
    """Whether all are refused: lengths beyond the end, decreasing, below 0, of others; pages beyond the last or below 0."""
    if step == "paged_attention":
        Q, pages = np.ones((1, 1, 1, 1)), np.ones((2, 2, 1, 1))
        tables = (([[0, 2]], [3]), ([[0, -1]], [3]), ([[0, 1]], [5]), ([[0, 1]], [-1]))
        asked = [{"block_table": np.array(table), "lengths": np.array(lengths)} for table, lengths in tables]
        return REFUSED if all(impl.refuses(step, Q, pages, pages, **each) for each in asked) else 1.0
    if step == "cached_attention":
        Q, slots = np.ones((1, 1, 1, 1)), np.ones((1, 1, 2, 1))
        return REFUSED if all(impl.refuses(step, Q, slots, slots, lengths=np.array([length])) for length in (3, -1)) else 1.0
    X = np.ones((2, 1, 1))
    wrong = [(each, each) for each in ([0, 3], [0, 2, 1, 2], [-1, 2])] + [([0, 2], [0, 2, 2])]
    return REFUSED if all(impl.refuses(step, X, X, X, **lengths_of(*each)) for each in wrong) else 1.0
