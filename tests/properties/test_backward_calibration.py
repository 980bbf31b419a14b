"""The calibration of gradients is held: correct backwards pass, and a fault as fine as the committed one is seen."""

import json
from pathlib import Path

import numpy as np
import pytest

from properties.evaluation.baseline_rules import RULES_OF_GRADIENTS, Case, worst_of
from properties.evaluation.calibration import runner, table, tally
from properties.evaluation.calibration.backward import work
from properties.evaluation.calibration.backward.cases import CASES, case_of
from properties.evaluation.calibration.backward.faults import GRADED
from properties.evaluation.calibration.backward.low_precision import LowPrecisionBackward
from properties.evaluation.calibration.backward.variants import correct_variants
from properties.evaluation.calibration.variants import LOW_DTYPES
from properties.implementations.oracle import oracle
from properties.verdicts import NotOffered

COMMITTED = json.loads((Path(__file__).parents[2] / "properties" / "data" / "calibration.json").read_text(encoding="utf-8"))
FRESH = 20262  # a seed that the committed calibration did not draw from
HALF_A_STEP = 0.5  # graded faults shrink by half octaves, and a margin may lie that near to its mark


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("step", CASES)
def test_no_correct_gradient_is_flagged(step, dtype, monkeypatch):
    """On cases nobody has seen before, every gradient of every variant of the catalogue is within its budget."""
    monkeypatch.setattr(work, "CHUNK", 2)

    found = runner.work(("backward", step, dtype, 0), FRESH)

    assert found["counts"]["checks"] >= 2 * len(case_of(step, dtype, FRESH, 0).budgets)
    assert found["alarms"] == []


LARGE = ("row sums", "one quiet head", "slope of GELU", "scale of dK")  # witnesses
SAMPLE = [pytest.param(kind, marks=pytest.mark.long if kind in LARGE else ()) for kind in GRADED]


@pytest.mark.parametrize("kind", SAMPLE)
def test_no_budget_of_a_gradient_grows_duller(kind, monkeypatch):
    """The finest visible fault is as fine as the committed one, in float32."""
    committed = COMMITTED["float32"]["graded backward"]["exponents"][kind]
    monkeypatch.setattr(tally, "COARSEST", committed - HALF_A_STEP)
    monkeypatch.setattr(tally, "FINEST", committed)

    found = runner.work(("graded backward", kind, "float32", 0), 0)

    assert found["smallest"]["ours"] >= committed - HALF_A_STEP


@pytest.mark.parametrize("step", CASES)
def test_every_variant_is_right_in_float64(step):
    """It agrees with the oracle to the last few digits, whatever its order of summation and what it keeps."""
    case = case_of(step, "float32", FRESH, 1)
    exact = oracle(step, *case.args, **case.kwargs)
    exact = exact if isinstance(exact, dict) else {"dS": exact}
    offered = 0

    for name, variant in correct_variants().items():
        try:
            found = variant(step, case.args, case.kwargs, "float64")
        except NotOffered:
            continue
        offered += 1
        assert found.keys() == exact.keys(), name
        for gradient, array in exact.items():
            error = np.abs(found[gradient] - array).max(initial=0.0)
            assert error <= 2.0**-40 * np.abs(array).max(initial=1.0), f"{name}: {gradient}"

    assert offered >= len(CASES) * 8


@pytest.mark.parametrize("kind", GRADED)
def test_a_graded_fault_is_a_fault(kind):
    """A quarter too much or too little moves some gradient in float64; none of it moves none."""
    none, fault = (GRADED[kind](size) for size in (0.0, 0.25))
    args, kwargs = fault.witness(0)

    right, wrong = (each.wrong(LowPrecisionBackward("float64"), args, kwargs) for each in (none, fault))

    exact = oracle(fault.step, *args, **kwargs)
    exact = exact if isinstance(exact, dict) else {"dS": exact}
    assert all(np.allclose(right[name], exact[name], rtol=1e-9, atol=1e-12) for name in exact)
    assert any(np.abs(wrong[name] - exact[name]).max() > 2.0**-12 * np.abs(exact[name]).max() for name in exact)


def test_each_rule_judges_by_its_own_allowance():
    """An exact gradient is within all of them, and one that is twice as large as it should be within none."""
    args, kwargs = GRADED["one head"](0.0).witness(0)
    case = Case("attention_backward", args, kwargs, "float32")
    exact = {name: budget.exact for name, budget in case.budgets.items()}

    assert set(worst_of(case.judged(exact)).values()) == {0.0}
    assert min(worst_of(case.judged({name: 200 * array for name, array in exact.items()})).values()) > 1


def test_the_committed_calibration_shows_what_is_claimed_of_gradients():
    """No correct gradient is flagged; once the 3x rule flags none either, it sees faults ten times those we see, if any."""
    for dtype in LOW_DTYPES:
        assert COMMITTED[dtype]["backward"]["checks"] >= 19_000
        assert COMMITTED[dtype]["backward"]["alarms"] == []
        assert COMMITTED[dtype]["backward"]["false positives"]["ours"] == 0
        exponents = COMMITTED[dtype]["graded backward"]["mean exponent at no false positives"]
        assert 2.0 ** (exponents["ours"] - exponents["3x baseline"]) >= 10


def test_gradients_have_a_block_of_their_own():
    """In the summary and in the text, beside the block of steps; chunks without them are as before."""
    lines = [runner.work(("graded backward", "row sums of softmax", "float16", 0), 0)]
    lines.append({**work.correct("softmax_backward", "float16", 0, FRESH), "chunk": ["backward", "softmax_backward", "float16", 0]})

    found = table.summary(lines)["float16"]

    assert found["backward"]["false positives"].keys() == RULES_OF_GRADIENTS.keys()
    assert "correct gradients: " in table.text({"float16": found})
    assert not [chunk for chunk in runner.chunks(100, 10) if "backward" in chunk[0]]
    assert {chunk[0] for chunk in runner.chunks(0, 0, backward=10)} >= {"backward", "graded backward"}
