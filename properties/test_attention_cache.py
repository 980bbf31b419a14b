"""Caches of attention: whatever is done to one, in whatever memory, each query gets attention on its row so far."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.attention_cache_machine import (
    IMPOSSIBLE,
    OFF,
    WISH,
    WISHES,
    Start,
    assert_answers,
    in_pages,
    in_slots,
    offered_by,
    own_cache,
    program_of,
    starts,
    trying,
)
from properties.claims import claim
from properties.counterexample.attention_programs import BRANCHING
from properties.inputs.parameters import SEEDS

RING = ("cached_attention", "cached_attention.ring")


def assert_holds(impl, start, played, wishes):
    """Play the program that these wishes make, and judge it."""
    assert_answers(impl, start, played, program_of(wishes, start, offered_by(played)))


# Y8: programs of operations -------------------------------------------------------------------------------------------


@claim("Y8", needs="attention_cache")
@given(starts(), WISHES)
def test_a_cache_of_attention_answers_as_attention_so_far(impl, start, wishes):
    """Chunks, rollback, rows that reorder, leave and join, copies, reuse, a second request, uneven rows: never noticed."""
    assert_holds(impl, start, own_cache(impl, start), wishes)


@claim("Y8", needs=("attention_cache", "attention_cache.window"))
@given(starts(window=True), WISHES)
def test_a_cache_with_a_window_answers_as_attention_to_the_last_tokens(impl, start, wishes):
    """Each query sees as many, whatever the chunks are and however often the ring has wrapped."""
    assert_holds(impl, start, own_cache(impl, start), wishes)


@claim("Y8", needs="attention_cache")
def test_every_two_operations_on_a_cache_of_attention(impl):
    """Each operation behind each other one, in rows of different length where it has them; then one token more in every branch."""
    start = Start(b=3, h=1, d_k=2, d_v=1, m=2)
    played = own_cache(impl, start)
    offered = offered_by(played)
    prompt = (offered.index("attend_some" if "attend_some" in offered else "attend"), 0, 17)
    for first, second in product(range(len(offered)), repeat=2):
        for branch in (0, 1) if offered[first] in BRANCHING else (0,):
            wishes = [prompt, (first, 0, 7), (second, branch, 8)]
            assert_answers(impl, start, played, program_of(wishes, start, offered))


@claim("Y8", needs="cached_attention")
@given(starts(), WISHES, st.booleans())
def test_slots_of_an_engine_are_attention_so_far(impl, start, wishes, spare):
    """In a static cache, and in a contiguous one that has no slot to spare; what a rollback leaves behind stays there."""
    assert_holds(impl, start, in_slots(impl, start, spare=spare), wishes)


@claim("Y8", needs=RING)
@given(starts(window=True), WISHES)
def test_a_ring_of_an_engine_is_attention_to_the_last_tokens(impl, start, wishes):
    """Rows at different places of it, before it is full and when it has wrapped."""
    assert_holds(impl, start, in_slots(impl, start), wishes)


@claim("Y8", needs="paged_attention")
@given(starts(), WISHES)
def test_pages_of_an_engine_are_attention_so_far(impl, start, wishes):
    """Pages are shared until they are written to, given back, and taken again with what they held; branches have one memory."""
    assert_holds(impl, start, in_pages(impl, start), wishes)


# Y5: more tokens than there is room for --------------------------------------------------------------------------------


@claim("Y5", needs=("attention_cache", "attention_cache.capacity"))
@given(starts(), st.integers(1, 3), SEEDS)
def test_more_tokens_than_a_cache_has_room_for_are_refused_or_kept(impl, start, k, seed):
    """The last token of its room is answered; those beyond raise, or are answered as if there were room."""
    played, rng = own_cache(impl, start), np.random.default_rng(seed)
    full = [[0, "attend", *start.tokens(rng, start.b, start.room - start.m)]]
    beyond = [*full, [0, "attend", *start.tokens(rng, start.b, k)]]
    assert_answers(impl, start, played, full)

    refused = impl.refuses("attention_cache", *start.beginning, program=beyond, capacity=start.room)

    assert_answers(impl, start, played, full if refused else beyond)


@claim("Y5", needs="attention_cache")
@given(starts(), st.lists(WISH, max_size=3), st.tuples(WISH, st.sampled_from(OFF)), st.lists(WISH, max_size=2))
def test_what_cannot_be_done_to_a_cache_is_refused_and_changes_nothing(impl, start, wishes, tried, later):
    """Rows, lengths and counts that are not there, tokens without room: it raises and is as it was, or answers if that can be."""
    program = trying(impl, start, wishes, tried, later)

    assert_answers(impl, start, own_cache(impl, start), program)


@claim("Y5", needs="attention_cache")
def test_each_operation_on_a_cache_may_be_refused(impl):
    """Each with numbers too large and below 0, in rows of different length where it has them; then tokens and a rollback."""
    start = Start(b=3, h=1, d_k=2, d_v=1, m=2, room=8)
    played = own_cache(impl, start)
    offered = offered_by(played)
    prompt = (offered.index("attend_some" if "attend_some" in offered else "attend"), 0, 17)
    for number, off, seed in product(range(len(IMPOSSIBLE)), OFF, (7, 8)):
        program = trying(impl, start, [prompt], ((number, 0, seed), off), [(0, 0, 9)])
        assert_answers(impl, start, played, program)
