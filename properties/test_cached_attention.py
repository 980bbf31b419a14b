"""Attention over a cache with slots to spare, and over a ring: what was written counts, in its order, and nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.domain import drawn_inside
from properties.implementations.impl import Impl
from properties.inputs.attention import farthest
from properties.inputs.parameters import SEEDS, Call
from properties.inputs.sequences import cached_calls, in_slots, out_of_slots

RING = ("cached_attention", "cached_attention.ring")


def answer(impl: Impl, call: Call) -> np.ndarray:
    """What the implementation says to the call."""
    return impl.cached_attention(*call.args, **call.kwargs)


def assert_as_in_order(impl: Impl, call: Call) -> None:
    """Each row is judged as plain attention, causal at the end of the keys and values that the cache holds, laid in their order."""
    Q, *caches = call.args
    got = answer(impl, call)

    for r, (K, V) in enumerate(zip(*(out_of_slots(cache, call.kwargs["lengths"]) for cache in caches), strict=True)):
        n, m = Q.shape[2], K.shape[1]
        if n <= m:
            mask = np.tri(n, m, m - n, dtype=bool)
            assert_rounding_only(impl, "attention", got[r : r + 1], Q[r : r + 1], K[None], V[None], mask)


# Y6: a static cache ---------------------------------------------------------------------------------------------------


@claim("Y6", needs="cached_attention")
@given(cached_calls(ring=False))
def test_cached_attention_agrees_with_the_oracle(impl, call):
    """Rows of different lengths, full, almost full, of none; NaN in every slot that nobody wrote to."""
    assert_rounding_only(impl, "cached_attention", answer(impl, call), *call.args, **call.kwargs)


@claim("Y6", needs="cached_attention")
@given(cached_calls(ring=False, empty=False))
def test_cached_attention_is_attention_on_the_slots_that_were_written(impl, call):
    """The oracle knows of no cache here."""
    assert_as_in_order(impl, call)


@claim("Y6", needs="cached_attention")
@given(cached_calls(ring=False), st.sampled_from(("huge", "zeros", "another")))
def test_slots_that_nobody_wrote_to_move_no_bit(impl, call, kind):
    """So does a rollback: a shorter length, while the slots behind it still hold what they held."""
    Q, *caches = call.args
    gap = {"huge": farthest(impl.dtype), "zeros": 0.0, "another": 1.0}[kind]

    filled = impl.cached_attention(Q, *(np.where(np.isnan(X), gap, X) for X in caches), **call.kwargs)

    assert_identical(filled, answer(impl, call), f"attention with {kind} in place of NaN where nobody wrote")


@claim("Y6", needs="cached_attention")
@given(cached_calls(ring=False), st.integers(1, 5), SEEDS)
def test_more_room_and_other_rows_change_nothing(impl, call, more, seed):
    """The same in a larger cache, with the rows in another order, and each row by itself, is judged as before."""
    Q, *caches = call.args
    lengths = call.kwargs["lengths"]
    capacity = caches[0].shape[2]
    more = max(drawn_inside(capacity=capacity + more)["capacity"] - capacity, 0)
    larger = [np.pad(X, ((0, 0), (0, 0), (0, more), (0, 0)), constant_values=np.nan) for X in caches]
    order = np.random.default_rng(seed).permutation(len(Q))

    got = impl.cached_attention(Q[order], *(X[order] for X in larger), lengths=lengths[order])
    rows = [impl.cached_attention(Q[r : r + 1], *(X[r : r + 1] for X in caches), lengths=lengths[r : r + 1]) for r in range(len(Q))]

    assert_rounding_only(impl, "cached_attention", got[np.argsort(order)], *call.args, **call.kwargs)
    assert_rounding_only(impl, "cached_attention", np.concatenate(rows), *call.args, **call.kwargs)


@claim("Y6", needs="cached_attention")
@given(cached_calls(ring=False, empty=False))
def test_cached_tokens_one_by_one_are_tokens_at_once(impl, call):
    """Decoding token by token, with lengths that grow by one, is judged as n queries at once; later slots hold what they may."""
    Q, *caches = call.args
    n, lengths = Q.shape[2], call.kwargs["lengths"]

    one_by_one = [impl.cached_attention(Q[:, :, i : i + 1], *caches, lengths=lengths - (n - 1 - i)) for i in range(n)]

    assert_rounding_only(impl, "cached_attention", np.concatenate(one_by_one, axis=2), *call.args, **call.kwargs)


# Y7: a ring -----------------------------------------------------------------------------------------------------------


@claim("Y7", needs=RING)
@given(cached_calls(ring=True))
def test_a_ring_agrees_with_the_oracle(impl, call):
    """Before it is full, when it is, and after it has wrapped, rows at different places of it; NaN where nothing is held."""
    assert_rounding_only(impl, "cached_attention", answer(impl, call), *call.args, **call.kwargs)


@claim("Y7", needs=RING)
@given(cached_calls(ring=True, empty=False))
def test_a_ring_is_attention_on_what_is_left(impl, call):
    """The oracle knows of no ring here."""
    assert_as_in_order(impl, call)


@claim("Y7", needs=RING)
@given(cached_calls(ring=True, empty=False), st.integers(1, 9))
def test_a_ring_may_begin_anywhere(impl, call, turn):
    """What a ring that has wrapped holds, held so many positions later: turned in its slots, and judged as before."""
    Q, *caches = call.args
    lengths, capacity = call.kwargs["lengths"], caches[0].shape[2]
    turns = np.where(lengths >= capacity, turn, 0)
    turned = [np.stack([np.roll(X[r], by, axis=1) for r, by in enumerate(turns)]) for X in caches]

    got = impl.cached_attention(Q, *turned, lengths=lengths + turns, ring=True)

    assert_rounding_only(impl, "cached_attention", got, *call.args, **call.kwargs)


@claim("Y7", needs=RING)
@given(cached_calls(ring=False, empty=False), st.integers(1, 4), SEEDS)
def test_a_ring_that_is_written_token_by_token_is_a_window(impl, call, capacity, seed):
    """Each token is written over the oldest and then asked for: judged as attention to the last positions, causal."""
    Q, *caches = call.args
    K, V = (np.nan_to_num(X) for X in caches)  # all of a static cache is a sequence here
    capacity = drawn_inside(capacity=capacity)["capacity"]
    q = Q[:, :, seed % Q.shape[2]][:, :, None]

    for length in range(1, K.shape[2] + 1):
        lengths = np.full(len(Q), length)
        got = impl.cached_attention(q, *(in_slots(X, lengths, capacity) for X in (K, V)), lengths=lengths, ring=True)
        last = slice(max(length - capacity, 0), length)
        assert_rounding_only(impl, "attention", got, q, K[:, :, last], V[:, :, last])


# Y5: impossible lengths -----------------------------------------------------------------------------------------------


@claim("Y5", needs="cached_attention")
@given(cached_calls(ring=False, empty=False), st.sampled_from(("beyond the last slot", "below 0")))
def test_impossible_cache_lengths_are_refused(impl, call, kind):
    """A length without slots, or below 0: no answer is right, so it raises.

    Where `corrupt_indices = unchecked` it may return anything. Either way the next good call is answered as ever.
    """
    lengths = call.kwargs["lengths"].copy()
    lengths[-1] = call.args[1].shape[2] + 1 if kind == "beyond the last slot" else -1
    before = answer(impl, call)

    refused = impl.refuses("cached_attention", *call.args, lengths=lengths)

    if impl.conventions.corrupt_indices == "refused":
        assert_identical(np.array(refused), np.array(True), f"refusal of a length {kind}")
    assert_identical(answer(impl, call), before, "the answer to a good call afterwards")
