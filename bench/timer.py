"""The paired timer: all peers of a group in random order inside every round, in one process.

Drift of the machine (neighbours, clocks, temperature) is slower than a round, so within one it hits all peers alike and the
ratio of two samples of the same round is free of it. What differs from process to process (layout of memory, place among the
neighbours) is seen by repeating the whole in fresh processes: `bench.run`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.clock import Clock, without_garbage_collection

LEAST_SAMPLE_NS = 1e6  # a sample is so many calls in a row that it takes a millisecond: far above the clock's resolution
MOST_INNER = 10_000
WARM_NS = 20e6  # calls after the first and before the first sample: caches, branch predictors, kernels chosen by trial
WARM_CALLS = 3
LEAST_ROUNDS = 3
MOST_ROUNDS = 200


@dataclass
class Built:
    """A peer ready to be timed: all conversion is done."""

    call: Callable[..., Any]
    arguments: list[tuple[Any, ...]]  # one for each variant of the inputs
    really: str  # the code that will run
    dtype: str  # in which it computes and is judged
    keeps_memory: bool = False  # its allocator gives nothing back, so that a call's own need cannot be seen


@dataclass
class Kept:
    """The output of a timed call, or the part of it that will be judged."""

    variant: int
    part: Any


@dataclass
class Entry:
    """One peer during the timing of its group."""

    built: Built
    part: Callable[[int, Any], Any]  # (variant, output) → a copy of the part that will be judged
    inner: int = 0
    samples: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    first_call_ns: float | None = None
    peak_bytes: int | None = None
    kept: dict[str, Kept] = field(default_factory=dict)  # "first", "random" and "last"
    error: str = ""
    calls: int = 0

    def next_variants(self, count: int) -> list[int]:
        """Which inputs the next `count` calls take: round and round."""
        chosen = [i % len(self.built.arguments) for i in range(self.calls, self.calls + count)]
        self.calls += count
        return chosen


def prepare(entry: Entry, clock: Clock) -> None:
    """The first call, timed apart; the memory of a second; a warm-up; and how many calls make one sample."""
    first = entry.built.arguments[0]
    entry.first_call_ns, _ = clock.time(entry.built.call, [first])
    if not entry.built.keeps_memory:
        entry.peak_bytes = clock.peak_bytes(lambda: entry.built.call(*first))
    spent, quickest = 0.0, float("inf")
    for _ in range(WARM_CALLS):
        took, _ = clock.time(entry.built.call, [first])
        spent, quickest = spent + took, min(quickest, took)
        if spent > WARM_NS:
            break
    entry.inner = int(np.clip(np.ceil(LEAST_SAMPLE_NS / quickest), 1, MOST_INNER))


def sample(entry: Entry, clock: Clock, place: int, started: float, *, keep_random: bool) -> None:
    """One sample of one peer, and the outputs worth keeping, outside of the clock."""
    variants = entry.next_variants(entry.inner)
    took, output = clock.time(entry.built.call, [entry.built.arguments[i] for i in variants])
    entry.samples.append(took)
    entry.order.append(place)
    entry.at.append(round(time.perf_counter() - started, 6))
    names = ["last"] + ["first"] * (len(entry.samples) == 1) + ["random"] * keep_random
    kept = Kept(variants[-1], entry.part(variants[-1], output))
    entry.kept.update(dict.fromkeys(names, kept))


def run_rounds(
    entries: dict[str, Entry],
    clock: Clock,
    rng: np.random.Generator,
    seconds: float,
    least: int = LEAST_ROUNDS,
    watch: Callable[[str], None] = lambda _: None,
) -> None:
    """Time all entries for about so many seconds, and for `least` rounds at the least. One that raises leaves the rounds.

    `watch` is told, outside the clock, whose turn it is.
    """
    for name in rng.permutation(list(entries)):
        watch(name)
        _guarded(entries[name], lambda entry=entries[name]: prepare(entry, clock))
    started = time.perf_counter()
    with without_garbage_collection():
        for done in range(MOST_ROUNDS):
            if done >= least and time.perf_counter() - started > seconds:
                break
            keep_random = rng.random() < 1 / (done + 1)
            going = [name for name, entry in entries.items() if not entry.error]
            for place, name in enumerate(rng.permutation(going)):
                entry = entries[name]
                watch(name)
                _guarded(entry, lambda e=entry, p=place, k=keep_random: sample(e, clock, p, started, keep_random=k))


def _guarded(entry: Entry, what: Callable[[], None]) -> None:
    try:
        what()
    except Exception as error:
        entry.error = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
