"""What a user can declare of an implementation, by every way in: conventions, a contract, whose conventions it follows."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from properties import test_output_projection
from properties.conventions.declarations import Declarations, read_contract, read_conventions
from properties.implementations.contract import Contract, declared
from properties.implementations.conventions import OURS
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.verdict.judge import run_property
from reports.records import Verdict
from veriformer import verify
from veriformer.cli import main
from veriformer.isolation.in_process import InProcess
from veriformer.isolation.proxy import ImplementationProxy, TargetError
from veriformer.results import Results
from veriformer.settings import Refused, as_text

MINE = """
    import math
    import torch

    def output_projection(X, *, W, b=None):  # split-K: two halves, summed in the dtype of the tensors
        half = X.shape[-1] // 2
        Y = X[..., :half] @ W[:half] + X[..., half:] @ W[half:]
        return Y if b is None else Y + b

    def told(X, *, W, b=None):
        return output_projection(X, W=W, b=b)

    told.contract = {"split_k": 2}

    class Told:
        contract = {"bfloat16": {"split_k": 2}}
        conventions = {"subnormals": "flushed"}
        output_projection = staticmethod(output_projection)

    class Nonsense:
        contract = {"accumulation": "bfloat16"}
        output_projection = staticmethod(output_projection)

    def attention(Q, K, V, mask=None):
        scores = Q @ K.mT / math.sqrt(Q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.softmax(scores, dim=-1) @ V
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A user's folder."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "mine.py").write_text(textwrap.dedent(MINE))
    return folder


# ---- what is read ----


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("fully_masked_row=nan, eps=outside", {"fully_masked_row": "nan", "eps": "outside"}),
        ({"fully_masked_row": "nan", "eps": "outside"}, {"fully_masked_row": "nan", "eps": "outside"}),
        ("mask_polarity=open", {"mask_polarity": None}),
        ({"mask_polarity": None}, {"mask_polarity": None}),
        ("", {}),
        (None, {}),
    ],
)
def test_conventions_are_read_as_text_and_as_a_mapping(said, meant):
    """Both mean the same; `open` leaves to a probe what would be declared otherwise."""
    assert read_conventions(said) == meant
    assert read_conventions(as_text(said)) == meant


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("mode=fused,cast_weights=true,split_k=2", {"mode": "fused", "cast_weights": True, "split_k": 2}),
        ({"mode": "fused", "split_k": 2}, {"mode": "fused", "split_k": 2}),
        ("accuracies.exp=4,accuracies.tanh=2.5", {"accuracies": {"exp": 4.0, "tanh": 2.5}}),
        ("bfloat16.split_k=2", {"bfloat16": {"split_k": 2}}),
        ({"bfloat16": {"split_k": 2, "accuracies": {"exp": 4}}}, {"bfloat16": {"split_k": 2, "accuracies": {"exp": 4.0}}}),
        ("", None),
        (None, None),
    ],
)
def test_a_contract_is_read_as_text_and_as_a_mapping(said, meant):
    """The same for all dtypes, or by dtype."""
    assert read_contract(said) == meant
    assert read_contract(as_text(said)) == meant


def test_what_a_contract_says_for_all_dtypes_holds_in_each_it_names():
    """And what it says for one dtype comes on top there."""
    found = read_contract("mode=fused,float16.split_k=4")

    assert found is not None
    assert found["float16"] == {"mode": "fused", "split_k": 4}
    assert found["bfloat16"] == {"mode": "fused"}


def test_what_is_declared_takes_the_place_of_what_an_implementation_says():
    """Conventions item by item, and those named that of the library; whoever shares the implementation is not misled."""
    before = built_in("reference")

    told = Declarations.read("fully_masked_row=mean", "split_k=2", "torch").about(before)

    assert told.conventions == replace(OURS, fully_masked_row="mean", fully_masked_softmax="nan", non_finite_masked_key="leaks")
    assert declared(told, "float64") == (Contract("float64", split_k=2),)
    assert before.conventions == OURS
    assert declared(before, "float64") == (Contract("float64"),)


NONSENSE = [
    ({"conventions": "blind_row=nan"}, "--conventions: blind_row is fully_masked_row since veriformer 0.2"),
    (
        {"conventions": "mask_polarity=hidden"},
        "--conventions: mask_polarity=hidden is mask_polarity=true_masks since veriformer 0.2",
    ),
    (
        {"conventions": "fully_masked_rw=nan"},
        "--conventions: no 'fully_masked_rw'; did you mean fully_masked_row?; expected some of mask_polarity",
    ),
    ({"conventions": "fully_masked_row=zero"}, "--conventions: fully_masked_row: expected one of zeros, nan, mean, got 'zero'"),
    ({"conventions": "fully_masked_row"}, "--conventions: expected name=value, got 'fully_masked_row'"),
    ({"contract": "mode=lazy"}, "--contract: in float64: mode: expected one of eager, fused, got 'lazy'"),
    ({"contract": "split_k=two"}, "--contract: split_k: expected a whole number, got 'two'"),
    ({"contract": "cast_weights=perhaps"}, "--contract: cast_weights: expected true or false, got 'perhaps'"),
    ({"contract": "speed=3"}, "--contract: no 'speed'; expected some of accumulation"),
    ({"contract": "float8.split_k=2"}, "--contract: no 'float8.split_k'"),
    ({"contract": "split_k=0"}, "--contract: in float64: split_k: expected 1 to 64 parts of a matrix product, got 0"),
    ({"contract": "accumulation=bfloat16"}, "in bfloat16 it makes sense: declare it for that dtype alone, bfloat16.NAME=VALUE"),
    ({"like": "pytorch"}, "--like: expected one of torch, "),
]


@pytest.mark.parametrize(("said", "complaint"), NONSENSE)
def test_nonsense_is_one_line_and_exit_code_2(scratch, monkeypatch, said, complaint):
    """On the command line and in `veriformer.verify`."""
    monkeypatch.chdir(scratch)
    options = [f"--{name}={value}" for name, value in said.items()]
    told = CliRunner().invoke(main, ["verify", "mine:output_projection", *options])

    assert told.exit_code == 2
    assert complaint in told.stderr.strip().splitlines()[-1]
    with pytest.raises(Refused) as refused:
        verify(lambda scores: scores, step="softmax", dtype="float64", **said)
    assert complaint in str(refused.value)


def test_a_class_that_declares_nonsense_is_a_usage_error(scratch, monkeypatch):
    """In one line, in a process of its own and in this one."""
    monkeypatch.chdir(scratch)

    with pytest.raises(TargetError, match="contract: in float64: accumulation: expected at least the precision of dtype float64"):
        ImplementationProxy("mine:Nonsense")


# ---- every way in ----


def output_projection(X, *, W, b=None):
    """Split-K in this process."""
    half = X.shape[-1] // 2
    Y = X[..., :half] @ W[:half] + X[..., half:] @ W[half:]
    return Y if b is None else Y + b


def verdict(adapter) -> Verdict:
    """Of logits in bfloat16 that count to the last digit."""
    return run_property(test_output_projection.test_logits_count_to_the_last_digit, Impl(adapter, "bfloat16"), seed=0).verdict


@pytest.mark.parametrize(
    ("target", "expected"), [("mine:output_projection", Verdict.FAIL), ("mine:told", Verdict.PASS), ("mine:Told", Verdict.PASS)]
)
def test_a_class_and_a_function_declare_their_contract_in_an_attribute(scratch, monkeypatch, target, expected):
    """Halves of a product that are summed in bfloat16 pass once that is declared, and fail as long as it is not."""
    monkeypatch.chdir(scratch)

    with ImplementationProxy(target, step="output_projection") as adapter:
        assert verdict(adapter) is expected


def test_a_callable_of_this_process_declares_its_contract_in_an_attribute():
    """As one in a process of its own."""

    def told(X, *, W, b=None):
        return output_projection(X, W=W, b=b)

    assert verdict(InProcess("told", told, "output_projection", None)) is Verdict.FAIL
    told.contract = {"split_k": 2}
    assert verdict(InProcess("told", told, "output_projection", None)) is Verdict.PASS


ASKED = ("--claims=O1", "--dtype=bfloat16", "--examples=5", "--as=output_projection")


def command(*arguments: str, folder: Path) -> dict[str, set[str]]:
    """The verdicts of a command of the user's, by property."""
    environment = os.environ | {"PYTEST_ADDOPTS": "-p no:cacheprovider"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    run = folder / "run"
    assert (run / "manifest.json").exists(), done.stdout + done.stderr
    lines = [json.loads(line) for line in (run / "verify.jsonl").read_text().splitlines()]
    manifest = json.loads((run / "manifest.json").read_text())
    assert [each["contract"] for each in manifest["follows"]] == [
        "bfloat16.split_k=2" if "bfloat16" in done.args[-1] else "split_k=2"
    ]
    return {line["verdict"] for line in lines if line["verdict"] != "UNSUPPORTED"}


def in_a_folder(folder: Path, toml: str = "") -> Path:
    """A folder with the module of the user's, and a pyproject.toml."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(textwrap.dedent(MINE))
    (folder / "pyproject.toml").write_text(toml)
    return folder


def test_the_command_line_declares_a_contract(tmp_path):
    """And the run's manifest says which one it was."""
    arguments = ("-m", "veriformer", "verify", "mine:output_projection", *ASKED, "--run=run", "--contract=split_k=2")

    assert command(*arguments, folder=in_a_folder(tmp_path)) == {"PASS"}


@pytest.mark.parametrize(
    "toml",
    [
        pytest.param('[tool.veriformer]\ncontract = "split_k=2"\n', id="text"),
        pytest.param("[tool.veriformer.contract]\nsplit_k = 2\n", id="table"),
    ],
)
def test_pyproject_declares_a_contract(tmp_path, monkeypatch, toml):
    """As a text, or as a table of its own: the run is asked for as with the option."""
    monkeypatch.chdir(in_a_folder(tmp_path, toml))
    asked = []
    monkeypatch.setattr("veriformer.progress.verify", lambda request, _: asked.append(request) or Results(request.run, [], []))

    CliRunner().invoke(main, ["verify", "mine:output_projection", *ASKED, "--run=run"], catch_exceptions=False)

    assert [request.contract for request in asked] == ["split_k=2"]


def test_pytest_declares_a_contract(tmp_path):
    """`pytest --pyargs properties --contract …` from any folder."""
    target = "--implementation=mine.py:output_projection"
    options = ("-klogits", *ASKED, "--run=run", "--contract=split_k=2")
    arguments = ("-P", "-m", "pytest", "-q", "--pyargs", "properties", target, *options)

    assert command(*arguments, folder=in_a_folder(tmp_path)) == {"PASS"}


def test_verify_declares_conventions_a_contract_and_a_library():
    """A closure that gives NaN to a fully masked row, as declared; like PyTorch it would have given zeros."""
    minus_infinity = -np.inf

    def attention(Q, K, V, mask=None):
        scores = Q @ K.mT / Q.shape[-1] ** 0.5
        return torch.softmax(scores if mask is None else scores.masked_fill(~mask, minus_infinity), dim=-1) @ V

    def found(**declared):
        return verify(attention, dtype="float32", claims="M2", examples=5, **declared)

    assert found(conventions={"fully_masked_row": "nan"}, contract={"mode": "eager"})
    assert found(like="torch", conventions="fully_masked_row=nan")
    broken = found(like="torch").broken
    assert {finding.verdict for finding in broken} == {Verdict.CONVENTION_MISMATCH, Verdict.FAIL}
    assert "fully_masked_row: declared zeros, but the probe shows nan" in {finding.message for finding in broken}
