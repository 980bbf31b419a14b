"""The timer: every peer once a round, in random order; known durations and known memory are found again."""

import time

import numpy as np
import pytest
import torch

from bench.analysis.summary import Group
from bench.peers.base import Built
from bench.runner import timer, worker
from bench.runner.clock import ProcessorClock
from bench.runner.correctness import parts
from bench.runner.timer import Entry, run_rounds, skip_slowest
from bench.workloads import named
from properties.verdicts import NotOffered


def entry(call, variants: int = 1) -> Entry:
    """A peer that does nothing but `call`."""
    return Entry(Built(call, [(i,) for i in range(variants)], "", "float64"), lambda _, output: output)


def test_all_run_once_in_every_round_in_random_order():
    """The places of a round are a permutation, and not always the same one."""
    entries = {name: entry(lambda i: i) for name in "abcd"}

    run_rounds(entries, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=20)

    orders = list(zip(*(entries[name].order for name in "abcd"), strict=True))
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(orders) == 20
    assert len(set(orders)) > 5


def test_every_process_builds_its_peers_in_an_order_of_its_own(monkeypatch):
    """Whoever is built first lies elsewhere in memory: built in one order always, the same code differs from itself by 0.14 %."""

    def refuse(_name: str) -> None:
        raise NotOffered("this test builds nothing")

    monkeypatch.setattr(worker, "peer", refuse)
    monkeypatch.setattr(worker, "POSSIBLE", False)  # a worker is forked, and not a process that has had threads
    group = Group(named("softmax.8x8x64"), "float32", "cpu", 1, tuple("abcd"), "a").fields
    job = {"group": group, "peers": list("abcd"), "absent": {"d": ("failed", "died")}, "last": [], "seconds": 0.0}
    orders = set()
    for process in range(10):
        said: list[dict] = []
        order = {"seed": 0, "order_seed": 0, "process": process, "device": "cpu", "threads": 1, "until": float("inf")}
        found = worker.time_group(job, order, {}, [], said.append)
        assert [timed.peer for timed in found.timed] == list("abcd")
        orders.add(tuple(line["at"][1] for line in said))

    assert {tuple(sorted(order)) for order in orders} == {("a", "b", "c")}
    assert len(orders) > 3


def test_a_known_duration_is_measured():
    """Sleeping 5 ms takes 5 ms or a little more, in each sample and in the first call."""
    sleeper = entry(lambda _: time.sleep(0.005))

    run_rounds({"sleeper": sleeper}, ProcessorClock(), np.random.default_rng(0), seconds=0.0)

    assert min(sleeper.samples) >= 5e6
    assert sleeper.first_call_ns is not None
    assert sleeper.first_call_ns >= 5e6
    assert sleeper.inner == 1


def test_short_calls_are_repeated_until_a_sample_is_long_enough():
    """A call of a microsecond is timed some hundred times in a row, going round its variants."""
    seen = []
    quick = entry(seen.append, variants=3)

    run_rounds({"quick": quick}, ProcessorClock(), np.random.default_rng(0), seconds=0.0)

    assert quick.inner > 50
    assert seen[-7:] in ([0, 1, 2, 0, 1, 2, 0], [1, 2, 0, 1, 2, 0, 1], [2, 0, 1, 2, 0, 1, 2])


def test_outputs_of_the_first_a_random_and_the_last_sample_are_kept():
    """With the variant they belong to."""
    echo = entry(lambda i: i, variants=5)

    run_rounds({"echo": echo}, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=10)

    assert set(echo.kept) == {"first", "random", "last"}
    assert all(kept.part == kept.variant for kept in echo.kept.values())


def test_one_that_raises_leaves_and_the_others_go_on():
    """Its error is kept; the others have all their rounds."""
    calls = []

    def breaks(i):
        calls.append(i)
        if len(calls) > 6:
            raise RuntimeError("no more")
        time.sleep(0.002)

    entries = {"breaks": entry(breaks), "works": entry(lambda i: i)}
    run_rounds(entries, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=8)

    assert entries["breaks"].error == "RuntimeError: no more"
    assert len(entries["works"].samples) == 8


def test_the_slowest_are_skipped_because_until_the_others_fit():
    """Three rounds of 1 + 2 + 4 + 8 s need 45 s: in 22 s there is no time for the 8, in 10 s for the 4 either; the last stays."""

    def fitting(seconds: float, last=()) -> str:
        entries = {name: entry(lambda i: i) for name in "abcd"}
        for name, each in entries.items():
            each.sample_ns = 1e9 * 2.0 ** "abcd".index(name)
        skip_slowest(entries, seconds, 3, last)
        return "".join(name for name, each in entries.items() if not each.skipped_because)

    assert fitting(45.0) == "abcd"
    assert fitting(22.0) == "abc"
    assert fitting(10.0) == "ab"
    assert fitting(16.0, last="c") == "ac"
    assert fitting(-1.0, last="c") == ""


def test_who_takes_very_long_is_called_twice(monkeypatch):
    """Once for the first call, once for one round; the others have that one round too, but are warmed as ever."""
    monkeypatch.setattr(timer, "LONG_NS", 10e6)
    slow, quick = entry(lambda _: time.sleep(0.02)), entry(lambda i: i)

    run_rounds({"slow": slow, "quick": quick}, ProcessorClock(), np.random.default_rng(0), seconds=0.0)

    assert slow.calls == 1
    assert slow.peak_bytes is None
    assert len(slow.samples) == len(quick.samples) == 1
    assert quick.inner > 1


def test_when_the_time_is_over_nobody_is_called():
    """Nor does anybody fail: there was no time."""
    late = entry(lambda i: i)

    run_rounds({"late": late}, ProcessorClock(), np.random.default_rng(0), seconds=0.0, until=time.time() - 1)

    assert late.calls == 0
    assert late.skipped_because == "the time limit came before its first call"
    assert not late.samples


@pytest.mark.skipif(ProcessorClock().peak_bytes(lambda: None) is None, reason="this system does not tell a process its peak")
def test_memory_that_a_call_needs_is_seen_even_if_it_was_needed_before():
    """64 MiB are seen to within a tenth, each time, and nothing where nothing is needed."""
    clock = ProcessorClock()
    for _ in range(2):
        peak = clock.peak_bytes(lambda: np.ones(8 * 2**20).sum())
        assert peak is not None
        assert 0.9 < peak / 2**26 < 1.1
    nothing = clock.peak_bytes(lambda: None)
    assert nothing is not None
    assert nothing < 2**21


def test_one_that_stops_the_clock_has_no_speed(monkeypatch):
    """The clock goes on for the others."""
    clock = time.perf_counter_ns

    def stop(_: int) -> None:
        time.perf_counter_ns = lambda: 0

    entries = {"stops it": entry(stop), "others": entry(lambda i: i)}
    monkeypatch.setattr(time, "perf_counter_ns", clock)

    run_rounds(entries, ProcessorClock(), np.random.default_rng(0), seconds=0.0)

    assert entries["stops it"].error.startswith("it replaced time.perf_counter_ns")
    assert entries["stops it"].samples == []
    assert time.perf_counter_ns is clock
    assert entries["others"].error == ""
    assert min(entries["others"].samples) > 0


def test_a_tensor_that_may_compute_when_it_is_read_has_no_speed():
    """What it does after the clock has stopped is not in its time."""
    lazy = type("Lazy", (torch.Tensor,), {})
    call = named("softmax.8x8x64").calls(0)[0]
    (part,) = parts(named("softmax.8x8x64"), [call], 0)

    assert part.of(torch.zeros(8, 8, 64, 64)).shape == (1, 1, 64, 64)
    with pytest.raises(TypeError, match="a Lazy may compute when it is read"):
        part.of(torch.zeros(8, 8, 64, 64).as_subclass(lazy))
