"""The properties of caches of attention: they let correct ones pass, and show each faulty one by a short program."""

from functools import partial

import numpy as np
import pytest
import torch

from properties.attention_cache_machine import IMPOSSIBLE, OFF, Start, impossible, meaning, program_of
from properties.counterexample.attention_programs import begun, followed
from properties.evaluation.detection.attention_cache import OF_AN_ENGINE, OWN
from properties.implementations.attention_caches import Pool, Slots
from properties.implementations.cached import CHANGES, play
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.implementations.recomputed import RecomputedAttention
from properties.test_attention_cache import (
    test_a_cache_of_attention_answers_as_attention_so_far as drawn,
)
from properties.test_attention_cache import (
    test_a_cache_with_a_window_answers_as_attention_to_the_last_tokens as windowed,
)
from properties.test_attention_cache import (
    test_each_operation_on_a_cache_may_be_refused as refusing,
)
from properties.test_attention_cache import (
    test_every_two_operations_on_a_cache_of_attention as enumerated,
)
from properties.test_attention_cache import (
    test_more_tokens_than_a_cache_has_room_for_are_refused_or_kept as overfull,
)
from properties.test_attention_cache import (
    test_pages_of_an_engine_are_attention_so_far as paged,
)
from properties.test_attention_cache import (
    test_slots_of_an_engine_are_attention_so_far as slotted,
)
from properties.test_attention_cache import (
    test_what_cannot_be_done_to_a_cache_is_refused_and_changes_nothing as tried,
)
from properties.verdict.judge import run_property
from reports.records import Verdict
from veriformer.isolation.proxy import ImplementationProxy

SHOWN_BY = {"copied-cache-shares-its-slots": enumerated, "rollback-to-the-shortest-row": enumerated}
SHOWN_BY |= {fault.id: refusing for fault in OWN if fault.breaks == ("Y5",)}
SHOWN_BY |= {"full-cache-writes-over-its-last-token": overfull, "ring-forgets-the-token-it-begins-with": windowed}
SHOWN_BY |= {fault.id: paged if fault.base == "paged_attention" else slotted for fault in OF_AN_ENGINE}
OFFERED = ("attend", *CHANGES, "attend_some", "request")
START = Start(b=2, h=1, d_k=1, d_v=1, page=2)


def judged(fault, by, *, wrong, examples=40):
    """By one property, as a run would judge it."""
    return run_property(by, Impl(fault.implementation(wrong=wrong), fault.dtype), seed=0, examples=examples)


@pytest.mark.parametrize("by", [drawn, windowed, enumerated, overfull, refusing, tried])
def test_a_correct_cache_passes(by):
    """One with slots, a ring, and rows of different length; and something was compared."""
    judgement = judged(OWN[0], by, wrong=False, examples=10)

    assert judgement.verdict is Verdict.PASS, judgement.message
    assert judgement.compared


def test_a_refused_operation_is_named_by_its_place_and_the_program_goes_on():
    """What is tried and raises changes nothing; what raises untried ends the program."""
    cache = OWN[0].implementation(wrong=False).attention_cache
    one = [torch.ones(1, 1, 1, 1)] * 3
    beyond = [0, "try", "reorder", torch.tensor([1])]

    outcome = play(cache, *one[1:], program=[[0, "try", "copy"], beyond, [0, "attend", *one]])

    assert outcome["refused"] == [1]
    assert [length for _, length in outcome["results"]] == [1, 1, 2]
    with pytest.raises(IndexError):
        play(cache, *one[1:], program=[[0, *beyond[2:]]])


def test_a_cache_in_a_process_of_its_own_is_the_same_cache(tmp_path):
    """A window crosses the pipe as the number it is, and so do the operations that a cache has."""
    (tmp_path / "mine.py").write_text(OWN[0].source(wrong=False), encoding="utf-8")
    with ImplementationProxy(str(tmp_path / "mine.py") + ":attention_cache") as mine:
        judgement = run_property(windowed, Impl(mine, "float32"), seed=0, examples=5)

    assert {"attention_cache.capacity", "attention_cache.window"} <= mine.options
    assert judgement.verdict is Verdict.PASS, judgement.message
    assert judgement.compared


@pytest.mark.parametrize("fault", [*OWN, *OF_AN_ENGINE], ids=lambda fault: fault.id)
def test_a_faulty_cache_is_shown_by_a_short_program(fault):
    """Where a program is its counterexample, of at most six operations; the memory of an engine shows the call that is wrong."""
    judgement = judged(fault, SHOWN_BY.get(fault.id, drawn), wrong=True)

    assert judgement.verdict in (Verdict.FAIL, Verdict.ERROR), judgement.message
    assert 1 <= len(judgement.counterexample.splitlines()) <= 6, judgement.counterexample


def called(*_, **given):
    """Attention that answers with nothing, and notes what it is given."""
    CALLS.append(given)
    return np.zeros((2, 1, 1, 1))


CALLS: list[dict] = []


def tokens(number, b=2):
    """Q, K and V of one token in each row."""
    return [np.full((b, 1, 1, 1), float(number))] * 3


def test_what_is_forgotten_stays_in_its_slot():
    """A rollback shortens the rows, and writes nothing; where nobody wrote there is NaN."""
    cache = Slots(called, *(X[:, :, :0] for X in tokens(0)[1:]), capacity=3)
    cache.attend(*tokens(1))
    cache.attend(*tokens(2))

    cache.rollback(1)

    np.testing.assert_array_equal(cache.K[0, 0, :, 0], [1, 2, np.nan])
    assert cache.lengths.tolist() == [1, 1]


def test_a_page_is_shared_until_it_is_written_to_and_comes_back_as_it_was():
    """Copies have one page between them; the one that writes gets another, and what is given back is taken first."""
    pool = Pool(called, pages=8, page=2, seed=0)
    one = pool.cache(*(X[:, :, :0] for X in tokens(0)[1:]))
    one.attend(*tokens(1))
    other = one.copy()
    assert other.tables == one.tables

    other.attend(*tokens(2))
    theirs = [pages[0] for pages in other.tables]
    assert not set(theirs) & {pages[0] for pages in one.tables}
    np.testing.assert_array_equal(pool.K[theirs[0], :, 0, 0], [1, 2])

    other.rollback(0)
    one.attend(*tokens(3))
    one.attend(*tokens(4))
    assert {pages[1] for pages in one.tables} == set(theirs)
    np.testing.assert_array_equal(pool.K[one.tables[0][1], :, 0, 0], [4, 2])


def test_every_page_is_free_or_in_use():
    """Whatever a program does: the rows that have a page are as many as the pool says."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wishes = [(int(rng.integers(16)), int(rng.integers(3)), int(rng.integers(2**16))) for _ in range(6)]
        caches = []
        pool = Pool(lambda Q, *_, **__: np.zeros(Q.shape), pages=96, page=2, seed=seed)

        def made(*beginning, pool=pool, caches=caches):
            caches.append(pool.cache(*beginning))
            return caches[-1]

        program = program_of(wishes, START, ("attend", "rollback", "reorder", "leave", "reset", "attend_some", "request"))
        play(made, *START.beginning, program=program)

        held = [page for cache in caches for pages in cache.tables for page in pages]
        assert sorted(pool.free + list(dict.fromkeys(held))) == sorted(pool.rows)
        assert all(pool.rows[page] == held.count(page) for page in pool.rows)


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("off", OFF)
def test_what_cannot_be_done_has_a_number_that_is_not_there(name, off):
    """Too large or below 0, whatever else is drawn; and the oracle's own cache refuses it, or does what it stands for."""
    start = Start(b=3, h=1, d_k=1, d_v=1, m=2, room=5)
    rows = begun(*start.beginning)

    for seed in range(20):
        given = impossible(name, rows, start, np.random.default_rng(seed), off)
        number = given[0].shape[2] - 3 if name == "attend" else given[-1]
        most = {"rollback": 2, "attend": 0, "attend_some": 1}.get(name, 2)
        assert np.min(number) < 0 or np.max(number) > most
        what = [0, "try", name, *given]
        recomputed = partial(RecomputedAttention, partial(oracle, "attention"), capacity=start.room)
        outcome = play(recomputed, *start.beginning, program=[what])
        assert outcome["refused"] == [0] or meaning(name, given, rows) is not None


def test_wishes_make_a_program_that_can_be_played():
    """The same wishes make the same program; no row has more tokens than there is room for; each branch is asked in the end."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        wishes = [(int(rng.integers(16)), int(rng.integers(3)), int(rng.integers(2**16))) for _ in range(6)]
        start = Start(b=2, h=1, d_k=1, d_v=1, m=seed % 3, room=5)

        program = program_of(wishes, start, OFFERED)

        branches = [begun(*start.beginning)]
        for operation in program:
            branches = followed(branches, operation, None)
        assert repr(program) == repr(program_of(wishes, start, OFFERED))
        assert all(1 <= row.length <= start.room for branch in branches for row in branch)
        assert [operation[:2] for operation in program[-len(branches) :]] == [[i, "attend"] for i in range(len(branches))]
