"""How many processes a run is worth, decided in the pytest process once it has the targets."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from veriformer import engine, workers
from veriformer.planned import Plan
from veriformer.run_options import RunOptions

MINE = "def softmax(scores):\n    return scores\n"


def count(monkeypatch, cores: int, steps: int, **said) -> int:
    """For one implementation of two dtypes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    plan = Plan(("mine",), RunOptions(**said), seed=0, run=None)
    plan._adapters["mine"] = SimpleNamespace(steps=range(steps), dtypes=("float32", "float64"))
    return workers.workers(plan)


@pytest.mark.parametrize(
    ("steps", "said", "expected"),
    [
        (20, {}, 4),
        (20, {"dtypes": ("float32",)}, 4),
        (4, {}, 4),
        (4, {"dtypes": ("float32",)}, 1),
        (20, {"claims": ("A5",)}, 1),
        (20, {"device": "cuda:0"}, 1),
    ],
)
def test_a_second_process_must_have_enough_to_do(monkeypatch, steps, said, expected):
    """Steps times dtypes, less where few claims are asked for; several calls at once would not be faster on one device."""
    assert count(monkeypatch, 64, steps, **said) == expected


def test_no_more_processes_than_cores(monkeypatch):
    """Nor than four, wherever it runs."""
    assert [count(monkeypatch, cores, 20) for cores in (1, 2, 5)] == [1, 2, 4]


@pytest.mark.parametrize(("least", "several"), [(0.001, True), (1000, False)])
def test_the_run_has_as_many_as_it_is_worth(tmp_path, least, several):
    """Each with one thread; or none but the pytest process itself."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "bounds.py").write_text(
        f"import os; from veriformer import workers; workers.WORTH_MORE = {least}; os.sched_getaffinity = lambda _: range(2)\n",
        encoding="utf-8",
    )
    asked = {"arrays": "numpy", "dtypes": ("float64",), "claims": ("A5",), "examples": 1}
    request = engine.Request(targets=("mine:softmax",), run=tmp_path / "run", workers="auto", **asked)
    command = [sys.executable, "-m", "pytest", *request.arguments(), "-pbounds", "--verbose"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ("2 workers" in said.stdout) == several, said.stdout + said.stderr
    assert (tmp_path / "run" / "verify.jsonl").exists()
