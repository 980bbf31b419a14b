"""The paired timer: all peers of a group in random order inside every round, here or in processes of their own (`apart`).

Drift of the machine (neighbours, clocks, temperature) is slower than a round: it hits all peers of a round alike and cancels in
their ratio. Before each sample: wait until other peers' thread pools are idle, return freed memory to the system, and make one
untimed call, which wakes the peer's own pool and faults in its pages. A sample that still page-faults is retaken. What differs
from process to process is seen by repeating the whole in fresh processes (`run`).
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bench.peers.base import Built
from bench.runner import settle
from bench.runner.clock import Clock, without_garbage_collection
from properties.implementations.patched import Functions

LEAST_SAMPLE_NS = 1e6  # a sample is so many calls in a row that it takes a millisecond: far above the clock's resolution
MOST_INNER = 10_000
WARM_NS = 20e6  # calls after the first and before the first sample: caches, branch predictors, kernels chosen by trial
WARM_CALLS = 3
SLOW_NS = 1e9  # a call of a second is warm once it was called twice, and is a sample of its own
LONG_NS = 10e9  # a longer call is not made for its warmth or its memory alone, and one round with it is enough in a process
FEW_PAGES = 0.01  # the share of a sample that page faults may take, at `PAGE_NS` each
PAGE_NS = 1e3
MOST_KEPT = 0.9  # a peer that faults on this share of its first call's pages keeps no memory
MOST_REPEATS = 4  # of one sample
LEAST_ROUNDS = 3
MOST_ROUNDS = 200


class Timeable(Protocol):
    """What is asked of a peer, here or where it runs; what it raises is kept in `error`."""

    error: str
    skipped_because: str  # why there is no time for it
    sample_ns: float  # what one sample will take, as far as is known before the first

    def prepare(self, clock: Clock) -> None:
        """See `prepare`."""
        ...

    def sample(self, clock: Clock, place: int, started: float, *, keep_random: bool) -> None:
        """See `sample`."""
        ...


@dataclass
class Kept:
    """The output of a timed call, or the part of it that will be judged."""

    variant: int
    part: Any


@dataclass
class Entry:
    """One peer during the timing of its group, in this process."""

    built: Built
    part: Callable[[int, Any], Any]  # (variant, output) → a copy of the part that will be judged
    inner: int = 0
    sample_ns: float = 0.0  # what one sample will take, as far as is known before the first
    samples: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    disturbed: int = 0  # samples begun while threads of other peers were still running
    repeated: int = 0  # how often a sample was retaken for its page faults
    first_call_ns: float | None = None
    peak_bytes: int | None = None
    kept: dict[str, Kept] = field(default_factory=dict)  # "first", "random" and "last"
    error: str = ""
    skipped_because: str = ""  # why there is no time for it
    calls: int = 0

    def prepare(self, clock: Clock) -> None:
        """See `prepare`; what it raises is kept in `error`."""
        self._guarded(lambda: prepare(self, clock))

    def sample(self, clock: Clock, place: int, started: float, *, keep_random: bool) -> None:
        """See `sample`; what it raises is kept in `error`."""
        self._guarded(lambda: sample(self, clock, place, started, keep_random=keep_random))

    def _guarded(self, what: Callable[[], None]) -> None:
        functions = Functions()
        try:
            what()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
        if replaced := functions.put_back():
            self.error = f"it replaced {', '.join(replaced)}: nothing that was timed is to be believed"

    def next_variants(self, count: int) -> list[int]:
        """Which inputs the next `count` calls take, in turn."""
        chosen = [i % len(self.built.arguments) for i in range(self.calls, self.calls + count)]
        self.calls += count
        return chosen


def prepare(entry: Entry, clock: Clock) -> None:
    """The first call, timed apart; the memory of a second; a warm-up; and how many calls make one sample."""
    settle.wait()
    first = entry.built.arguments[0]
    entry.first_call_ns, _ = clock.time(entry.built.call, [first])
    entry.sample_ns, entry.inner = entry.first_call_ns, 1
    if entry.sample_ns > LONG_NS:
        return
    began = time.perf_counter_ns()
    if not entry.built.caching_allocator:
        entry.peak_bytes = clock.peak_bytes(lambda: entry.built.call(*first))
    entry.sample_ns = float(time.perf_counter_ns() - began)
    if entry.sample_ns > SLOW_NS:
        return
    spent, quickest = 0.0, float("inf")
    for _ in range(WARM_CALLS):
        took, _ = clock.time(entry.built.call, [first])
        spent, quickest = spent + took, min(quickest, took)
        if spent > WARM_NS:
            break
    entry.inner = int(np.clip(np.ceil(LEAST_SAMPLE_NS / quickest), 1, MOST_INNER))
    entry.sample_ns = entry.inner * quickest


def skip_slowest(entries: Mapping[str, Timeable], seconds: float, rounds: int, last: Collection[str]) -> None:
    """Skip the slowest until `rounds` rounds of the others fit into `seconds`; those of `last` are skipped last."""
    going = [entry for name, entry in entries.items() if not entry.error and not entry.skipped_because]
    going.sort(key=lambda entry: (entry in [entries.get(name) for name in last], -entry.sample_ns))
    needed = rounds * sum(entry.sample_ns for entry in going) * 1e-9
    for entry in going:
        if needed <= seconds:
            return
        own = entry.sample_ns * 1e-9
        entry.skipped_because = f"no time for {rounds} calls of {own:.3g} s, with {max(seconds, 0.0):.0f} s left of the time limit"
        needed -= rounds * own


@dataclass
class _Taken:
    """Some calls in a row."""

    ns: float  # a call
    pages: float  # page faults, a call
    variant: int  # of the last call
    output: Any  # of the last call


def _take(entry: Entry, clock: Clock, calls: int) -> _Taken:
    variants = entry.next_variants(calls)
    before = settle.page_faults()
    ns, output = clock.time(entry.built.call, [entry.built.arguments[i] for i in variants])
    return _Taken(ns, (settle.page_faults() - before) / calls, variants[-1], output)


def sample(entry: Entry, clock: Clock, place: int, started: float, *, keep_random: bool) -> None:
    """One sample of one peer, and the outputs to keep, copied outside the clock.

    The first call finds sleeping threads and no memory; it is not timed. If the next one page-faults, the sample is retaken, unless
    it faults on as many pages as the first call: then the peer keeps no memory.
    """
    entry.disturbed += not settle.wait()
    settle.trim_memory()
    fresh = 0.0 if entry.sample_ns > LONG_NS else _take(entry, clock, 1).pages
    taken = _take(entry, clock, entry.inner)
    for _ in range(MOST_REPEATS):
        if taken.pages * PAGE_NS <= FEW_PAGES * taken.ns or taken.pages >= MOST_KEPT * fresh:
            break
        taken.output = None  # or its memory would be missing in the next call
        taken = _take(entry, clock, entry.inner)
        entry.repeated += 1
    entry.samples.append(taken.ns)
    entry.order.append(place)
    entry.at.append(round(time.perf_counter() - started, 6))
    names = ["last"] + ["first"] * (len(entry.samples) == 1) + ["random"] * keep_random
    kept = Kept(taken.variant, entry.part(taken.variant, taken.output))
    entry.kept.update(dict.fromkeys(names, kept))


def run_rounds(
    entries: Mapping[str, Timeable],
    clock: Clock,
    rng: np.random.Generator,
    seconds: float,
    least: int = LEAST_ROUNDS,
    watch: Callable[[str], None] = lambda _: None,
    until: float = float("inf"),
    last: Collection[str] = (),
) -> None:
    """Time all entries for about `seconds`, set-up included, and for at least `least` rounds. One that raises leaves the rounds.

    `watch` gets, outside the clock, the name whose turn it is. Entries that do not fit before `until`, in seconds since 1970, are
    skipped: the slowest first, and those of `last` last.
    """
    ends = time.perf_counter() + seconds
    with without_garbage_collection():
        for name in rng.permutation(list(entries)):
            if time.time() > until:
                entries[name].skipped_because = "the time limit came before its first call"
                continue
            watch(name)
            entries[name].prepare(clock)
        least = 1 if any(entry.sample_ns > LONG_NS for entry in entries.values()) else least
        skip_slowest(entries, until - time.time(), least, last)
        started = time.perf_counter()
        for done in range(MOST_ROUNDS):
            if done >= least and time.perf_counter() > ends:
                break
            keep_random = rng.random() < 1 / (done + 1)
            going = [name for name, entry in entries.items() if not entry.error and not entry.skipped_because]
            for place, name in enumerate(rng.permutation(going)):
                watch(name)
                entries[name].sample(clock, place, started, keep_random=keep_random)
