"""The timer: every peer once a round, in random order; known durations and known memory are found again."""

import re
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.growth import fitted_exponent, local_exponents
from bench.analysis.roofline import best_of, share
from bench.analysis.summary import Group
from bench.peers import table
from bench.peers.base import Built
from bench.peers.table import PEERS, could, peer
from bench.runner import timer, worker
from bench.runner.clock import ProcessorClock
from bench.runner.correctness import Judged, judge, parts
from bench.runner.timer import Entry, Kept, run_rounds, skip_slowest
from bench.workloads import STEPS, Workload, named
from properties.verdicts import NotOffered
from reports.bench_records import Roof

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"b": 2, "n": 20, "m": 5, "h": 2, "d_model": 8, "d_ff": 12, "d_k": 4, "layers": 2, "vocab": 11, "length": 3}


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
    group = Group(named("softmax.8x8x64"), "float32", "cpu", 1, tuple("abcd"), "a").fields
    job = {"group": group, "peers": list("abcd"), "absent": {"d": ("failed", "died")}, "last": [], "seconds": 0.0}
    orders = set()
    for process in range(20):
        said: list[dict] = []
        order = {"seed": 0, "order_seed": 0, "process": process, "device": "cpu", "threads": 1, "until": float("inf")}
        found = worker.time_group(job, order, ProcessorClock(), {}, [], said.append)
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


# Correctness -------------------------------------------------------------------------------------------------------------


def outcome(workload: Workload, name: str, change=lambda output: output, dtype: str = "float32"):
    """What is said of a peer's output after `change`."""
    calls = workload.calls(seed=1)
    judged = parts(workload, calls, seed=1)
    built = peer(name).build(workload, calls, dtype, "cpu")
    kept = {"last": Kept(1, judged[1].of(change(built.call(*built.arguments[1]))))}
    return judge(workload, Judged(name, built.dtype, "cpu"), judged, kept)


OFFERED = [(step, name) for step in STEPS for name in PEERS if could(name, step, "cpu") and "compiled" not in name]


@pytest.mark.parametrize(("step", "name"), OFFERED)
def test_every_peer_computes_every_step_it_says_it_has(step, name):
    """On the same weights, within the oracle's budget, with something compared; the oracle repeats itself to the last bit."""
    for package in PEERS[name].packages:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")

    gate = outcome(Workload(step, step, SMALL), name)

    assert gate.verdict == "PASS", gate.message
    assert gate.compared > 0
    assert gate.claim == STEPS[step].claim


IN_BFLOAT16 = ("optimized", "torch.eager", "jax", "transformers")


@pytest.mark.parametrize(("step", "name"), [(step, name) for step, name in OFFERED if name in IN_BFLOAT16])
def test_in_bfloat16_too(step, name):
    """Those that compute in it stay within what rounding to eight bits explains."""
    for package in PEERS[name].packages:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")

    gate = outcome(Workload(step, step, SMALL), name, dtype="bfloat16")

    assert gate.verdict == "PASS", gate.message
    assert gate.compared > 0


@pytest.mark.parametrize("name", [name for name, row in PEERS.items() if row.packages])
def test_a_peer_that_is_not_installed_says_what_would_install_it(name, monkeypatch):
    """An extra of the peer's own name, which asks for all of its packages, each of which is pinned."""
    monkeypatch.setattr(table, "find_spec", lambda _: None)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = [line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]

    with pytest.raises(ImportError, match=f"^{name} is not installed: the extra `{name}` of veriformer brings it$"):
        peer.__wrapped__(name)

    assert [re.split(r"[<>=]", package)[0] for package in extras[name]] == list(PEERS[name].packages)
    assert set(PEERS[name].packages) <= set(pinned)


@pytest.mark.parametrize("step", sorted(set(STEPS) - {"mask", "generation"}))
@pytest.mark.parametrize(
    "change", [lambda out: out * 1.001, lambda out: out * 0, lambda out: out.index_fill(-1, out.new_zeros(1).long(), np.nan)]
)
def test_a_wrong_output_has_no_speed(step, change):
    """A thousandth too large, nothing at all, or a NaN in a column: the claim is broken."""
    gate = outcome(Workload(step, step, SMALL), "optimized", change)

    assert gate.verdict == "FAIL"
    assert gate.message


@pytest.mark.parametrize("name", [name for name, row in PEERS.items() if row.packages])
def test_nor_has_one_in_arrays_of_another_library(name):
    """Every number a tenth too large; where tokens are generated, the next ones of the vocabulary."""
    for package in PEERS[name].packages:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")

    if could(name, "encoder_layer", "cpu"):
        gate = outcome(Workload("encoder_layer", "encoder_layer", SMALL), name, lambda out: out * 1.1)
    else:
        gate = outcome(Workload("generation", "generation", SMALL), name, lambda tokens: (tokens + 1) % SMALL["vocab"])

    assert gate.verdict == "FAIL"


def test_a_token_that_is_not_the_likeliest_is_seen():
    """Generation that gives the next token of the vocabulary instead is not greedy."""
    gate = outcome(Workload("generation", "generation", SMALL), "optimized", lambda tokens: (tokens + 1) % SMALL["vocab"])

    assert gate.verdict == "FAIL"


def test_an_answer_to_another_question_is_seen():
    """Whoever keeps the answer to the variant before is caught: the variants differ."""
    workload = Workload("attention", "attention", SMALL)
    calls = workload.calls(seed=1)
    judged = parts(workload, calls, seed=1)
    built = peer("optimized").build(workload, calls, "float32", "cpu")
    stale = judged[1].of(built.call(*built.arguments[0]))

    assert judge(workload, Judged("optimized", "float32", "cpu"), judged, {"last": Kept(1, stale)}).verdict == "FAIL"


def test_an_output_judged_before_is_not_judged_again():
    """The same bits get the same judgement, by their digest."""
    workload = Workload("softmax", "softmax", SMALL)
    calls = workload.calls(seed=1)
    judged, known = parts(workload, calls, seed=1), {}
    built = peer("optimized").build(workload, calls, "float32", "cpu")
    kept = {"last": Kept(0, judged[0].of(built.call(*built.arguments[0])))}
    first = judge(workload, Judged("optimized", "float32", "cpu"), judged, kept, known)

    known[first.outputs[0]] = type(first)("PASS", "A5", "remembered", outputs=first.outputs)

    assert judge(workload, Judged("optimized", "float32", "cpu"), judged, kept, known).message == "remembered"


# Roof and growth ------------------------------------------------------------------------------------------------------


def roof(limit: str, rate: float, **size: int) -> Roof:
    """A limit that was measured."""
    return Roof(f"roof/{limit}/{size}", limit, "float32", "cpu", 1, size, rate, rate)


ROOFS = [
    roof("products", 50e9, rows=16, inner=16, columns=16),
    roof("products", 100e9, rows=1024, inner=1024, columns=1024),
    roof("read", 80e9, bytes=2**20),
    roof("read", 20e9, bytes=2**26),
]


def test_the_limit_that_binds_is_the_one_that_takes_longer():
    """Flops over the best product rate, or traffic over the speed of a working set no larger than it."""
    by_products = share(ROOFS, flops=100e9, traffic=1e6, dtype="float32", threads=1, ns=2e9)
    by_memory = share(ROOFS, flops=1e3, traffic=20e9, dtype="float32", threads=1, ns=2e9)

    assert by_products == pytest.approx((0.5, "products", False))
    assert by_memory == pytest.approx((0.5, "memory", False))


def test_a_point_above_the_roof_is_flagged():
    """Faster than the machine is an error."""
    found = share(ROOFS, flops=100e9, traffic=1e6, dtype="float32", threads=1, ns=0.5e9)

    assert found is not None
    assert found.above


def test_no_share_without_its_limits():
    """Another dtype's product rate says nothing."""
    assert share(ROOFS, 1e9, 1e6, "bfloat16", 1, 1e9) is None


def test_of_several_passes_the_best_counts():
    """A limit is the best ever seen."""
    assert best_of([roof("read", 1.0, bytes=1), roof("read", 3.0, bytes=1), roof("read", 2.0, bytes=1)])[0].rate == 3.0


def test_local_and_fitted_exponents_of_a_fixed_cost_and_a_square():
    """Between short lengths fixed costs rule; the fit covers the stated range only, and lies within its interval."""
    lengths = [64, 128, 256, 512, 1024, 2048]
    values = [1e5 + n**2 for n in lengths]
    rng = np.random.default_rng(0)
    by_process = [[value * rng.normal(1, 0.01) for value in values] for _ in range(5)]

    local = local_exponents(lengths, values)
    fitted = fitted_exponent(lengths, values, by_process)

    assert local[0].exponent < 0.2
    assert local[-1].exponent > 1.85
    assert (fitted.first, fitted.last) == (512, 2048)
    assert fitted.low < fitted.exponent < fitted.high
    assert 1.7 < fitted.exponent < 2.0


def test_two_lengths_are_not_fitted():
    """A line through two points has no residual: it would look certain."""
    assert fitted_exponent([512, 1024], [1.0, 4.0], []) is None


def test_a_small_share_of_the_tokens_is_judged_and_said():
    """The part of a large output that the oracle is asked for is named."""
    workload = named("attention.256")
    found = parts(workload, workload.calls(seed=1), seed=1)[0]

    assert found.call.args[0].shape == (1, 1, 16, 64)
    assert "queries" in found.what
