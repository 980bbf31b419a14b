"""Broken checks that one fault explains are one failure, explained once: by whoever meets it first, in whichever process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from properties.counterexample import failures, find
from properties.counterexample.failures import Failure, failure_of
from properties.counterexample.find import NAN, WRONG
from properties.implementations.calls import Asked
from properties.implementations.impl import Impl
from properties.verdict.judge import Judgement
from properties.verdicts import ClaimBroken, ImplementationError
from reports import records
from reports.records import Verdict
from veriformer import replay
from veriformer.isolation.proxy import ImplementationProxy
from veriformer.replay import Failures, explained

SOURCE = """
import numpy as np

def right(Q, K, V, mask=None, scale=0):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1] + scale, dtype=Q.dtype)
    scores = scores if mask is None else np.where(mask, scores, -np.inf).astype(Q.dtype)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ V

def scale(Q, K, V, mask=None):
    return right(Q, K, V, mask, 1)

def nan(Q, K, V, mask=None):
    return right(Q, K, V, mask) * np.nan

def masked(Q, K, V, mask=None):
    return right(Q, K, V, mask, 0 if mask is None else 1)

def strided(Q, K, V, mask=None):
    return right(Q, K, V, mask, 0 if Q.flags.c_contiguous else 1)

def raises(Q, K, V, mask=None):
    raise ValueError(f"{Q.shape} is not taken")

CALLS = []

def later(Q, K, V, mask=None):
    CALLS.append(1)
    return right(Q, K, V, mask, int(len(CALLS) > 3))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of the user's with these implementations."""
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def candidate(name: str, dtype: str = "float32") -> Impl:
    """One of them, in a process of its own."""
    return Impl(ImplementationProxy(f"mine.py:{name}", "attention", "numpy"), dtype)


def question(seed: int = 0, *, layout: str | None = None, masked: bool = False) -> Asked:
    """An attention of many numbers."""
    rng = np.random.default_rng(seed)
    Q, K, V = (rng.integers(-64, 65, (2, 3, n, d)) / 64 for n, d in ((4, 2), (5, 2), (5, 6)))
    mask = rng.random((2, 1, 4, 5)) < 0.8
    mask[..., 0] = True
    return Asked("attention", (Q, K, V, mask if masked else None), {}, layout)


def broken(impl: Impl, *calls: Asked) -> Judgement:
    """The judgement of a property that these calls break."""
    try:
        impl.reading(calls[-1].layout).call(calls[-1].step, *calls[-1].args)
    except ImplementationError as error:
        return Judgement(Verdict.ERROR, str(error), error=error, calls=calls)
    return Judgement(Verdict.FAIL, f"off by 3 in {impl.dtype}", error=ClaimBroken("off by 3"), calls=calls)


def test_a_failure_is_the_same_in_every_dtype_and_for_every_example(place):
    """The step and the kind of the wrong answer make it; its name is the same too."""
    found = {
        failure_of(impl, broken(impl, question(seed)))
        for impl in (candidate("scale", "float32"), candidate("scale", "float64"))
        for seed in (0, 1)
    }

    assert found == {Failure("mine.py:scale", "cpu", "attention", WRONG)}


def test_another_kind_of_wrong_answer_is_another_failure(place):
    """NaN; wrong with a mask alone; wrong in a layout alone; an exception, told by its line and not by its message."""
    kinds = {}
    for name, call in {
        "nan": question(),
        "masked": question(masked=True),
        "strided": question(layout="transposed"),
        "raises": question(),
    }.items():
        impl = candidate(name)
        found = failure_of(impl, broken(impl, call))
        kinds[name] = (found.kind, found.about)

    line = SOURCE.splitlines().index('    raise ValueError(f"{Q.shape} is not taken")') + 1
    assert kinds == {
        "nan": (NAN, ""),
        "masked": (WRONG, "mask"),
        "strided": (WRONG, "transposed"),
        "raises": ("ValueError", f"mine.py:{line} in raises"),
    }


def test_a_mask_that_a_fault_does_not_need_makes_no_other_failure(place):
    """A wrong scale shows with a mask and without."""
    impl = candidate("scale")

    assert failure_of(impl, broken(impl, question(masked=True))).about == ""


def test_only_one_of_several_processes_explains_a_failure(tmp_path):
    """Each has an object of its own about the same folder; who comes second refers to the first."""
    one, other = Failures(tmp_path), Failures(tmp_path)

    assert [one.meet("a"), other.meet("a"), one.meet("a"), other.meet("b")] == [True, False, False, True]
    assert one.met("b")
    assert one.seconds < replay.SECONDS


def test_a_failure_is_made_small_once_and_referred_to_from_then_on(place, monkeypatch):
    """Three broken properties in two dtypes: one minimisation, one script, whose ID the others name."""
    made = []
    smallest = find.smallest
    monkeypatch.setattr(find, "smallest", lambda *args, **kwargs: made.append(args) or smallest(*args, **kwargs))
    met = Failures(place / "run")
    (place / "run").mkdir()
    lines = []
    for dtype, seed in (("float32", 0), ("float32", 1), ("float64", 2)):
        impl = candidate("scale", dtype)
        lines.append(explained(met, impl, "A2", "test_scale", broken(impl, question(seed)), not_wanted))

    first, *others = lines
    assert len(made) == 1
    assert first["counterexample"].startswith("attention")
    assert f"veriformer repro {first['failure']}" in first["counterexample"]
    assert others == [{"failure": first["failure"], "counterexample": "", "refers": True}] * 2
    written = json.loads((place / "run" / "counterexamples" / f"{first['failure']}.json").read_text())
    assert sum(len(value["values"]) for value in written["calls"][0]["args"] if value) <= 16


def test_a_script_is_run_where_torch_is_imported_already(place):
    """It exits with 1 on the fault and with 0 on the right function; what changes its process is not seen by the next one."""
    (place / "run").mkdir()
    impl = candidate("scale")
    line = explained(Failures(place / "run"), impl, "A2", "test_scale", broken(impl, question()), not_wanted)
    script = place / "run" / "counterexamples" / f"{line['failure']}.py"

    assert replay.exit_code(script, with_torch=False) == 1
    assert replay.exit_code(script, "--candidate", "mine.py:right", with_torch=False) == 0
    assert replay.exit_code(script, "--candidate", "mine.py:nobody", with_torch=False) == 2


def test_what_a_process_of_its_own_does_not_show_has_no_script(place):
    """Right for its first calls: Hypothesis's example is all there is."""
    (place / "run").mkdir()
    impl = candidate("later")
    for _ in range(4):
        impl.call("attention", *question().args)
    smaller = Judgement(Verdict.FAIL, "off by 1", counterexample="x = 1")

    line = explained(Failures(place / "run"), impl, "A2", "test_scale", broken(impl, question()), lambda: smaller)

    assert line["counterexample"] == "x = 1"
    assert not list((place / "run" / "counterexamples").glob("*.py"))


def test_a_call_of_very_many_numbers_is_not_asked_again(place, monkeypatch):
    """It is told by what its property saw, cut to a corner, and claims nothing for itself where no corner shows it."""
    monkeypatch.setattr(failures, "LARGE", 10)
    (place / "run").mkdir()
    impl, asked = candidate("right"), []
    assert impl.conventions  # found out by now, with questions of the probes' own
    impl.adapter.call = lambda *args, **kwargs: asked.append(args) or ImplementationProxy.call(impl.adapter, *args, **kwargs)
    judgement = Judgement(Verdict.FAIL, "off", expected="1.0", got="nan", error=ClaimBroken("off"), calls=(question(),))
    met = Failures(place / "run")

    line = explained(met, impl, "A2", "test_scale", judgement, not_wanted)

    assert all(np.size(args[1][0]) <= 10 for args in asked)
    assert "too many numbers" in line["counterexample"]
    assert failure_of(impl, judgement).kind == NAN
    assert not met.met(line["failure"])


def not_wanted() -> Judgement:
    """Hypothesis is not asked where one answer shows the failure."""
    raise AssertionError("the property was run again")


# ---- a run as users start it ----


def verify(place, *options: str) -> subprocess.CompletedProcess:
    """`veriformer verify` on one of the implementations."""
    command = [sys.executable, "-P", "-m", "veriformer", "verify", *options, "--as=attention", "--arrays=numpy", "--examples=5"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_an_implementation_that_fails_everywhere_has_one_card(place):
    """NaN from every call, in two dtypes: all checks run, one card of at most 16 numbers, one script, and who is concerned."""
    said = verify(place, "mine.py:nan", "--claims=A2,A6,M2", "--dtype=float32,float64", "--run=out")

    assert said.returncode == 1, said.stderr
    lines = records.finished(place / "out" / "verify.jsonl")
    planned = json.loads((place / "out" / "manifest.json").read_text())["planned"]
    red = [line for line in lines if line["verdict"] == "FAIL"]
    assert len(lines) == len(planned)
    assert said.stdout.count("╭") == 1
    assert len({line["failure"] for line in red}) == 1
    assert [line["refers"] for line in red].count(False) == 1
    (script,) = (place / "out" / "counterexamples").glob("*.py")
    assert script.stem == red[0]["failure"]
    assert f"{script.stem}: {len(red)} checks of A2 A6 M2 in float32 float64" in " ".join(said.stdout.split())


def test_maxfail_ends_a_run_and_says_so(place):
    """Exit code 1, since something is broken; what did not run is said to be not wanted; the folder holds whole lines."""
    said = verify(place, "mine.py:nan", "--claims=A2,A6", "--dtype=float32", "--maxfail=2", "--run=out")

    lines = records.finished(place / "out" / "verify.jsonl")
    planned = json.loads((place / "out" / "manifest.json").read_text())["planned"]
    assert said.returncode == 1, said.stderr
    assert [line["verdict"] for line in lines].count("FAIL") == 2
    assert f"{len(planned) - len(lines)} not run because of --maxfail 2" in " ".join(said.stdout.split())
    assert len(lines) < len(planned)


def test_the_verdicts_are_the_same_with_several_workers(place):
    """And so are the failures that they are of, whoever explains them."""
    told = []
    for run, workers in (("one", ()), ("two", ("-pxdist", "--numprocesses=2", "--dist=worksteal"))):
        command = [sys.executable, "-P", "-m", "pytest", "-q", "--pyargs", "properties", "--implementation=mine.py:masked"]
        options = ["--as=attention", "--arrays=numpy", "--claims=A6,M2", "--dtype=float32", "--examples=5", f"--run={place / run}"]
        subprocess.run([*command, *options, *workers], cwd=place, capture_output=True, check=False)
        lines = records.finished(place / run / "verify.jsonl")
        told.append({(line["property"], line["verdict"], line["failure"], line["generated"]) for line in lines})

    assert told[0] == told[1]
    assert len({failure for _, _, failure, _ in told[0]} - {""}) >= 1
