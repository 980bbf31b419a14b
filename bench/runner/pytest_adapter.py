"""The workloads under pytest-benchmark: `pytest bench`. Its JSON, comparison and histograms work as its users expect.

Its numbers alone decide nothing: peers are timed one after another, in one process, so that drift reads as a difference
(`veriformer bench --self-test` shows how often). Verdicts come from `veriformer bench`.
"""

from functools import lru_cache
from itertools import cycle
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers.table import USUAL, could, peer
from bench.runner import correctness
from bench.runner.clock import clock_of
from bench.runner.timer import Entry, Kept, prepare
from bench.workloads import WORKLOADS, Workload, named, select
from properties.inputs.parameters import Call
from properties.verdicts import NotOffered

MOST_FLOPS = 5e9  # of a workload that is timed without being asked for
SEED = 0
WARM_UP_ROUNDS = 3


class Case(NamedTuple):
    """One workload on one peer; strings, as pytest-benchmark groups and compares by them."""

    workload: str
    peer: str
    dtype: str = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.workload}-{self.peer}"


def cases(asked: str | None) -> list[Case]:
    """The workloads asked for, or all that take no minutes, on every peer that offers them."""
    chosen = select(asked.split(",")) if asked else [w for w in WORKLOADS.values() if w.flops <= MOST_FLOPS]
    return [Case(workload.name, name) for workload in chosen for name in USUAL if could(name, workload.step, "cpu", "float32")]


@lru_cache(maxsize=1)
def inputs(name: str) -> tuple[list[Call], list[correctness.Part]]:
    """One workload's calls, kept for the next peer."""
    workload = named(name)
    calls = workload.calls(SEED)
    return calls, correctness.parts(workload, calls, SEED)


def measure(benchmark: BenchmarkFixture, case: Case) -> None:
    """Build, warm up, time, judge: a wrong output fails the benchmark, a peer that is not here or lacks the step skips it."""
    workload = named(case.workload)
    calls, parts = inputs(case.workload)
    try:
        built = peer(case.peer).build(workload, calls, case.dtype, case.device)
    except (NotOffered, ImportError) as reason:
        pytest.skip(f"{case.peer}: {reason}")
    entry = Entry(built, lambda variant, output: parts[variant].of(output))
    prepare(entry, clock_of(case.device))
    last: list[Any] = []
    turns = cycle(enumerate(built.arguments))

    def call() -> None:
        variant, arguments = next(turns)
        last[:] = variant, built.call(*arguments)

    benchmark.group = f"{case.workload} {case.dtype} {case.device}"
    benchmark.pedantic(call, rounds=10, iterations=entry.inner, warmup_rounds=WARM_UP_ROUNDS)
    kept = Kept(last[0], entry.part(*last))
    verdict = correctness.judge(workload, correctness.Judged(case.peer, built.dtype, case.device), parts, {"last": kept})
    benchmark.extra_info.update(case._asdict(), **_facts(workload, case, entry), verdict=verdict.verdict, claim=verdict.claim)
    if not verdict.passed:
        pytest.fail(f"{case.peer} has no speed: {verdict.claim}: {verdict.message}", pytrace=False)


def _facts(workload: Workload, case: Case, entry: Entry) -> dict[str, Any]:
    return {
        "flops": workload.flops,
        "bytes": workload.bytes(case.dtype),
        "tokens": workload.tokens,
        "first_call_ns": entry.first_call_ns,
        "peak_bytes": entry.peak_bytes,
    }
