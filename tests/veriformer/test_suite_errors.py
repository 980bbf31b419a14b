"""What goes wrong in the suite itself is one check's verdict, marked as the suite's own, and never the end of a run."""

import os
import subprocess
import sys
import textwrap

import pytest

from reports.records import Verdict
from veriformer import engine
from veriformer.results import Results

TARGET = """
    import numpy as np

    def softmax(scores):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return 2 * weights / weights.sum(axis=-1, keepdims=True)
"""
SABOTAGE = """
    import os
    from properties.counterexample import failures
    from properties.verdict import judge as judgement

    running = ""

    def pytest_runtest_setup(item):
        global running
        running = item.originalname

    def broken_in(name, do, otherwise):
        return lambda *args, **kwargs: do() if running == name else otherwise(*args, **kwargs)

    def fails():
        raise ZeroDivisionError("sabotaged")

    failures.failure_of = broken_in("test_softmax_agrees_with_the_oracle", fails, failures.failure_of)
    judgement.record.start = broken_in("test_every_row_is_a_distribution_of_its_own", fails, judgement.record.start)
    judgement.judge = broken_in("test_probabilities_sum_to_one", lambda: os._exit(3), judgement.judge)
    judgement.Judgement.as_line = broken_in(
        "test_a_power_of_two_of_equal_scores_share_exactly", lambda: {"verdict": "NONSENSE"}, judgement.Judgement.as_line
    )
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """A run in which our own code fails in four places, on two workers."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "mine.py").write_text(textwrap.dedent(TARGET), encoding="utf-8")
    (folder / "sabotage.py").write_text(textwrap.dedent(SABOTAGE), encoding="utf-8")
    asked = {"arrays": "numpy", "dtypes": ("float32",), "claims": ("A5",), "examples": 10}
    request = engine.Request(targets=("mine.py:softmax",), run=folder / "run", workers=2, **asked)
    command = [sys.executable, "-P", "-m", "pytest", *request.arguments(), "-psabotage"]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    return Results.of(folder / "run")


def found(results: Results, name: str):
    """The verdict of one property."""
    return next(each for each in results.findings if each.name == name)


def test_every_planned_check_has_its_verdict(results):
    """Though a worker of pytest-xdist died, and three checks went wrong in our own code."""
    assert len(results.planned) == len(results.findings)
    assert {each.name for each in results.findings} >= {"test_a_row_of_minus_infinity_is_what_is_declared"}
    assert not results.missing
    assert results.exit_code == 1


def test_a_broken_property_that_cannot_be_explained_leaves_its_verdict(results):
    """It fails as it did, and says what went wrong on the way to its counterexample."""
    verdict = found(results, "test_softmax_agrees_with_the_oracle")

    assert verdict.verdict is Verdict.FAIL
    assert "ZeroDivisionError: sabotaged" in verdict.suite_error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_every_row_is_a_distribution_of_its_own", "ZeroDivisionError: sabotaged"),
        ("test_probabilities_sum_to_one", "process died"),
        ("test_a_power_of_two_of_equal_scores_share_exactly", "could not be written down"),
    ],
)
def test_an_exception_of_our_own_is_an_error_marked_as_ours(results, name, said):
    """In judging, in writing the verdict down, or the end of the process that judges."""
    verdict = found(results, name)

    assert verdict.verdict is Verdict.ERROR
    assert said in verdict.suite_error
