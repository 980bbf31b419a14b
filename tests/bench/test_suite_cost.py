"""What a failure costs is measured on runs as users start them, and printed as a ratio to the right implementation's."""

import io
import re

import pytest
from rich.console import Console

from bench.analysis.show import show
from bench.analysis.summary import Summary
from bench.runner import suite_cost
from reports.bench_records import Cost, Trust

FEW = ("--claims=A6", "--examples=2")


def test_a_wrong_attention_is_set_against_the_right_one(monkeypatch):
    """The ratio is of whole runs, and the same checks were judged in both."""
    monkeypatch.setattr(suite_cost, "WRONG", ("nan",))

    right, wrong = suite_cost.failures(*FEW)

    assert right.ratio is None
    assert right.repeats == wrong.repeats > 0
    assert wrong.ratio == pytest.approx(wrong.seconds * wrong.repeats / (right.seconds * right.repeats))
    assert f"{wrong.ratio:.2f} times" in wrong.note
    assert float(re.search("first card (.+) s after", wrong.note)[1]) > 0


def test_an_implementation_that_does_not_fail_is_no_failure(monkeypatch):
    """Its ratio would say nothing of what a failure costs."""
    monkeypatch.setattr(suite_cost, "_shown", lambda *_: (0, "all well", float("nan")))

    with pytest.raises(RuntimeError, match="expected exit code 1, got 0: all well"):
        suite_cost.of_failure("nan", FEW, Cost("cost/failure/right", "failure", "right", 0.5, 2.0, 30))


def test_the_ratio_of_a_failure_is_printed():
    """A line for each, and none for what has no ratio."""
    costs = [
        Cost("cost/failure/right", "failure", "right", 0.5, 2.0, 30),
        Cost("cost/failure/nan", "failure", "nan", 0.75, 1.3, 30, "1.50 times the right attention's processor time", 1.5),
    ]
    trust = Trust("trust", True, "", 0, 0, None, None, None, None, None, None, 0.0)
    output = io.StringIO()

    show(Summary([], [], [], trust, costs), Console(file=output, width=120))

    assert "fails by nan: 1.50 times the right attention's processor time" in output.getvalue()
    assert "fails by right" not in output.getvalue()
