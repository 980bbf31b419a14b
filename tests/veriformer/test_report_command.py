"""`veriformer report`: renders run folders; without one, a run is verified, measured and rendered in turn."""

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from properties.run import run_folder
from properties.run.subprocesses import Interrupted
from veriformer import engine
from veriformer.cli import main
from veriformer.commands import report
from veriformer.results import Results

KEY = {"claim": "A5", "property": "p", "implementation": "mine", "dtype": "float32", "device": "cpu"}
PASSED = {
    **KEY,
    "kind": "verdict",
    "seed": 0,
    "isolated": True,
    "verdict": "PASS",
    "message": "",
    "counterexample": "",
    "budget_used": 0.5,
}
COUNTS = {"generated": 3, "filtered": 0, "compared": 9, "undecidable": 0, "suspects": [], "seconds": 0.1}
NOTHING = {"index": None, "expected": None, "got": None}


def a_run(folder: Path, verdict: str = "PASS") -> Path:
    """A run folder with one verdict."""
    run_folder.create(folder, {"planned": [KEY], "seed": 0, "environment": run_folder.environment(), "command": []})
    run_folder.append(folder / "verify.jsonl", PASSED | COUNTS | NOTHING | {"verdict": verdict})
    return folder


def test_a_folder_is_rendered_and_nothing_else(tmp_path):
    """The page and the summary, in the folder named by -o; the run folder stays as it was."""
    folder = a_run(tmp_path / "run")
    before = sorted(path.name for path in folder.iterdir())

    said = CliRunner().invoke(main, ["report", str(folder), "-o", str(tmp_path / "out")])

    assert said.exit_code == 0, said.output
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert "A5" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("verdict", "measured", "code"), [("PASS", 0, 0), ("FAIL", 0, 1), ("PASS", 1, 1), ("PASS", 5, 5), ("FAIL", 5, 1)]
)
def test_a_new_run_is_verified_measured_and_rendered(tmp_path, monkeypatch, verdict, measured, code):
    """All three dtypes of everything built in are asked for; the exit code is the worse of the two halves'."""
    asked = []

    def verified(request: engine.Request, cards: object):
        asked.append(request)
        return Results.of(a_run(request.run, verdict))

    monkeypatch.setattr(report.progress, "verify", verified)
    monkeypatch.setattr(report, "_bench", lambda *_: measured)

    said = CliRunner().invoke(main, ["report", "--run", str(tmp_path / "run")])

    assert said.exit_code == code, said.output
    assert asked[0].dtypes == ("float32", "float64", "bfloat16")
    assert {"reference", "optimized", "torch.sdpa"} <= set(asked[0].targets)
    assert (tmp_path / "run" / "report.html").exists()


def test_an_interrupted_run_is_kept_and_said_to_be(tmp_path, monkeypatch):
    """Exit 130, with the line that renders what is there."""

    def interrupted(request, cards):
        a_run(request.run)
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(report.progress, "verify", interrupted)

    said = CliRunner().invoke(main, ["report", "--run", str(tmp_path / "run")])

    assert said.exit_code == 130
    assert f"veriformer report {tmp_path / 'run'}" in " ".join(said.stdout.split())


def test_a_workload_that_does_not_exist_is_told_before_anything_runs(tmp_path):
    """One line, exit code 2, and no folder."""
    said = CliRunner().invoke(main, ["report", "--workloads", "atention", "--run", str(tmp_path / "run")])

    assert said.exit_code == 2
    assert "no workload, family or set called 'atention'; did you mean attention" in said.output
    assert not (tmp_path / "run").exists()
