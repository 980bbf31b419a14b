"""The examples of kernels are short, and pass what they are verified against."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from properties.implementations.domain_probes import found
from properties.implementations.impl import Impl
from properties.verdict.judge import run_property
from properties.verdict.listing import claim_of, properties
from reports.records import Verdict
from veriformer.isolation.in_process import InProcess

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "step", "claims"),
    [("packed_kernel", "packed_attention", {"Y3", "Y5"}), ("paged_decode", "paged_attention", {"Y4", "Y5", "Y8"})],
)
def test_an_example_of_a_kernel_is_short_and_passes(name, step, claims):
    """A function of at most 15 lines; every property of its claims passes, and it is seen to refuse what cannot be."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    impl = Impl(InProcess(name, getattr(module, step), step, None), "float32")
    (function,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))

    judged = [run_property(test, impl, seed=0, examples=5) for test in properties() if claim_of(test) in claims]
    verdicts = [judgement.verdict for judgement in judged if judgement.verdict is not Verdict.UNSUPPORTED]

    assert function.end_lineno - function.lineno + 1 <= 15
    assert len(verdicts) > 5
    assert set(verdicts) == {Verdict.PASS}
    assert impl.conventions.corrupt_indices == "refused"
    assert f'claims="{",".join(sorted(claims))}"' in path.read_text()


@pytest.mark.parametrize(
    ("name", "attribute", "claims"),
    [("limited_kernel", "attention", {"A2", "A8"}), ("grouped_window", "Kernel", {"X4", "X5", "X9"})],
)
def test_an_example_of_attention_passes_within_its_limits(name, attribute, claims):
    """Its limits are found by probes, and its options by its signature and what it names."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    thing = getattr(module, attribute)
    impl = Impl(InProcess(name, thing() if isinstance(thing, type) else thing, "attention", None), "float32")
    impl = impl.within(found(impl))

    judged = [run_property(test, impl, seed=0, examples=5) for test in properties() if claim_of(test) in claims]
    verdicts = [judgement.verdict for judgement in judged if judgement.verdict is not Verdict.UNSUPPORTED]

    assert len(verdicts) > 5
    assert set(verdicts) == {Verdict.PASS}
    assert bool(impl.domain) is (name == "limited_kernel")


def test_a_trained_model_writes_in_int8_what_it_writes_in_float64():
    """At least 99 % of the tokens, or the example fails; docs/fast.md has what it prints."""
    settings = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "int8_words.py")]

    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("int8: ")
    assert all(line in (EXAMPLES.parent / "docs" / "fast.md").read_text(encoding="utf-8").splitlines() for line in said)


def test_where_the_time_of_a_peer_goes_is_told_by_operators():
    """The most expensive first; the shares of all shown are at most the whole."""
    settings = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "where_time_goes.py"), "multi_head.8x64", "float32", "optimized"]

    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    said, *operators = [line for line in done.stdout.splitlines() if not line.startswith("USDT")]
    shares = [int(line.partition("%")[0]) for line in operators]
    assert said.startswith("optimized, multi_head.8x64, float32: ")
    assert shares == sorted(shares, reverse=True)
    assert 50 < sum(shares) <= 104
    assert any("addmm" in line or "mm" in line for line in operators)
