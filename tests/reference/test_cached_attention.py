"""The oracle of attention over a cache, by a second derivation: a growing window of plain attention, written slot by slot."""

import numpy as np
import pytest

from reference.attention import attention
from reference.cached_attention import cached_attention


def written(X: np.ndarray, capacity: int) -> np.ndarray:
    """Row after row into the next slot, and again from the first; NaN where nothing was written."""
    cache = np.full((capacity, X.shape[1]), np.nan)
    for slot, row in zip(np.resize(np.arange(capacity), len(X)), X, strict=True):
        cache[slot] = row
    return cache


@pytest.mark.parametrize(("length", "capacity"), [(1, 1), (3, 8), (5, 5), (6, 5), (13, 5), (7, 1), (40, 16)])
def test_a_ring_is_a_window_over_the_whole_sequence(length, capacity):
    """The last query of a ring attends to the last positions of the sequence; one that is not full, to all."""
    rng = np.random.default_rng(length)
    Q, K, V = (rng.standard_normal((length, d)) for d in (4, 4, 3))

    got = cached_attention(Q[-1:], written(K, capacity), written(V, capacity), length, ring=True)

    assert np.allclose(got, attention(Q, K, V)[-1:] if length <= capacity else attention(Q[-1:], K[-capacity:], V[-capacity:]))


def test_a_static_cache_is_causal_attention_at_its_end():
    """The n queries are the last n positions; slots behind them are not read."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal((6, d)) for d in (4, 4, 3))

    got = cached_attention(Q[-2:], np.pad(K, ((0, 3), (0, 0)), constant_values=np.nan), np.pad(V, ((0, 3), (0, 0))), 6)

    assert np.allclose(got, attention(Q, K, V, np.tri(6, dtype=bool))[-2:])


@pytest.mark.parametrize(("length", "ring", "said"), [(-1, True, "0 or more, got -1"), (4, False, "0 to 3, got 4")])
def test_lengths_without_slots_are_refused(length, ring, said):
    """In one line, with what was expected and what came."""
    with pytest.raises(ValueError, match=f"lengths: expected {said}"):
        cached_attention(np.ones((1, 2)), np.ones((3, 2)), np.ones((3, 2)), length, ring=ring)
