"""No speed for a wrong result: every peer is right on every step it offers, and what is wrong is seen."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.peers import table
from bench.peers.table import PEERS, could, peer
from bench.runner.correctness import Judged, judge, parts
from bench.runner.timer import Kept
from bench.workloads import STEPS, Workload, named
from optimized import tuned

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"b": 2, "n": 20, "m": 5, "h": 2, "d_model": 8, "d_ff": 12, "d_k": 4, "layers": 2, "vocab": 11, "length": 3}


def outcome(workload: Workload, name: str, change=lambda output: output, dtype: str = "float32"):
    """What is said of a peer's output after `change`."""
    calls = workload.calls(seed=1)
    judged = parts(workload, calls, seed=1)
    built = peer(name).build(workload, calls, dtype, "cpu")
    kept = {"last": Kept(1, judged[1].of(change(built.call(*built.arguments[1]))))}
    return judge(workload, Judged(name, built.dtype, "cpu"), judged, kept)


OFFERED = [(step, name) for step in STEPS for name in PEERS if could(name, step, "cpu", "float32") and "compiled" not in name]


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


IN_INT8 = [(step, name) for step in STEPS for name in PEERS if could(name, step, "cpu", "int8")]
LARGER = {**SMALL, "d_model": 64, "d_ff": 96}  # rounding to int8 averages out


@pytest.mark.parametrize(("step", "name"), IN_INT8)
def test_in_int8_near_on_the_whole(step, name):
    """With matrices rounded to int8 a peer is held to a share of the root mean square, and one that is off by a third is wrong."""
    for package in PEERS[name].packages:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")
    if name == "optimized.tuned" and torch.int8 not in tuned.dtypes():
        pytest.skip("this processor has no products of int8")
    wrong = (lambda tokens: (tokens + 1) % SMALL["vocab"]) if step == "generation" else lambda out: out * 1.3

    gates = [outcome(Workload(step, step, LARGER), name, change, dtype="int8") for change in (lambda out: out, wrong)]

    assert [gate.verdict for gate in gates] == ["PASS", "FAIL"], gates[0].message
    assert gates[0].compared > 0


def test_who_has_no_int8_is_not_asked_for_it():
    """Nor a step without products, nor a user's own."""
    assert {name for _, name in IN_INT8} == {"optimized", "optimized.tuned", "onnxruntime", "ctranslate2"}
    assert not any(could(name, "softmax", "cpu", "int8") for name in PEERS)
    assert not could("mine:kernel", "feed_forward", "cpu", "int8")


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

    if could(name, "encoder_layer", "cpu", "float32"):
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


def test_a_small_share_of_the_tokens_is_judged_and_said():
    """The part of a large output that the oracle is asked for is named."""
    workload = named("attention.256")
    found = parts(workload, workload.calls(seed=1), seed=1)[0]

    assert found.call.args[0].shape == (1, 1, 16, 64)
    assert "queries" in found.what


@pytest.mark.parametrize("step", ["transformer", "training"])
def test_of_a_long_source_some_logits_are_judged_and_said(step):
    """The oracle is asked for those alone, a right output passes, and a wrong one is seen."""
    workload = Workload(step, step, {**SMALL, "m": 17, "vocab": 1003})

    right, wrong = (outcome(workload, "optimized", change) for change in (lambda out: out, lambda out: out * 1.001))

    assert right.verdict == "PASS"
    assert re.fullmatch(r"tokens 0-15 of sequence \d, logits \d-100\d", right.sample)
    assert right.compared == 16 * 1000
    assert wrong.verdict == "FAIL"
