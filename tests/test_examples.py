"""The examples of kernels are short, and pass what they are verified against; the others do what they say."""

import ast
import importlib.util
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from optimized.initialisation import initialise
from optimized.parameters import Architecture
from properties.copy_reverse import EOS
from properties.implementations.domain_probes import found
from properties.implementations.impl import Impl
from properties.implementations.weights import save
from properties.verdict.judge import run_property
from properties.verdict.listing import claim_of, properties
from reports.records import Verdict
from veriformer.isolation.in_process import InProcess

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WAYS = [f"{dtype}, {tier}" for dtype in ("float32", "bfloat16", "int8") for tier in ("plain", "fastest")]


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


def test_a_trained_model_writes_in_fewer_bits_what_it_writes_in_float64():
    """At least 99 % of the tokens, or the example fails; docs/fast.md has what it prints, but for the times."""
    settings = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "int8_words.py")]

    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.rpartition(", ")[0] for line in done.stdout.splitlines()]
    page = (EXAMPLES.parent / "docs" / "fast.md").read_text(encoding="utf-8").splitlines()
    assert [line.partition(":")[0] for line in said] == ["float64", *WAYS]
    assert not set(said) - {line.rpartition(", ")[0] for line in page}


@pytest.fixture(scope="module")
def words():
    """The example that asks a trained model, of 32 sequences."""
    functions = runpy.run_path(str(EXAMPLES / "int8_words.py"))
    functions["main"].__globals__["ASKED"] = 32
    return functions


def saved(path, *, vocab=12, end=0.0):
    """A model that has learned nothing; `end` is added to the logit of the end token."""
    parameters = initialise(0, vocab=vocab, d_model=8, d_ff=12, layers=1)
    parameters.b_out[EOS] += end
    save(path, parameters, Architecture(h=2))
    return path


def test_the_weights_that_are_given_are_asked(words, tmp_path, capsys):
    """A model that has learned nothing writes nothing right, but in every dtype nearly the same."""
    code = words["main"](["--weights", str(saved(tmp_path / "model.safetensors"))])

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("float64: 0 of 32 sequences are written exactly, ")
    assert [line.partition(":")[0] for line in said[1:]] == WAYS
    assert all("288 of 288 tokens as in float64 (100.00 %)" in line for line in said[1:3]), "float32"
    kept = [float(line.partition("(")[2].partition(" %")[0]) for line in said[1:]]
    assert code == int(min(kept) < 99)


def test_too_many_other_tokens_are_exit_code_1(words, monkeypatch, capsys):
    """Here of a model that is not the one in float64."""
    others = words["packed"]

    def other(parameters):
        return others(replace(parameters, W_out=parameters.W_out.flip(1)))

    monkeypatch.setitem(words["main"].__globals__, "packed", other)
    assert words["main"]([]) == 1
    assert "(100.00 %)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("none", "expected a file that train_copy_reverse.py saved, got {path}, which is none"),
        ("folder", "expected a file that train_copy_reverse.py saved, got {path}, which is none"),
        ("text", "{path}: expected a safetensors file, got one that cannot be read as such"),
        ("other vocabulary", "{path}: expected a vocabulary of 12 tokens, got one of 13"),
        ("silent", "{path}: expected a model that writes tokens, got one that writes none"),
    ],
)
def test_a_file_that_is_no_such_model_is_one_line(words, given, line, tmp_path, capsys):
    """Exit code 2, and nothing on the standard output."""
    path = tmp_path / "model"
    if given == "folder":
        path.mkdir()
    elif given == "text":
        path.write_text("weights")
    elif given != "none":
        saved(path, vocab=13 if given == "other vocabulary" else 12, end=100.0)

    assert words["main"](["--weights", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"--weights: {line.format(path=path)}")
    assert (captured.err.count("\n"), captured.out) == (1, "")


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
