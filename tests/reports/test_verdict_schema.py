"""The published format of a verdict line holds for every verdict there is, and for nothing else."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from properties.claims import CLAIMS, claim
from properties.run import run_folder
from properties.verdict.judge import Judgement, run_property
from properties.verdicts import ClaimBroken, ConventionMismatch, ImplementationCrash, ImplementationError, record
from reports import records
from reports.records import Verdict, encoded, plain, schema, verdict_record

SCHEMA = schema()
KEY = {"kind": "verdict", "claim": "A5", "property": "p", "implementation": "mine:softmax", "dtype": "float32", "device": "cpu"}


class Impl:
    """What a judgement asks of an implementation."""

    name, dtype, adapter, domain = "mine:softmax", "float32", None, None

    def offers(self, *_steps):
        """Everything."""
        return True


def written(judgement, folder) -> dict:
    """The line that a run folder would hold of this judgement."""
    run_folder.append(folder / "verify.jsonl", KEY | {"seed": 0, "isolated": True} | judgement.as_line())
    return records.finished(folder / "verify.jsonl")[-1]


def judged(outcome) -> Judgement:
    """The judgement of a property that compares one number and then does as `outcome` says."""

    @claim("A5")
    @given(st.integers(0, 3))
    def one(impl, number):
        record.compared(1, budget_used=0.5)
        if outcome is not None:
            raise outcome

    return run_property(one, Impl(), seed=0, examples=5)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (None, "PASS"),
        (ClaimBroken("over budget", index=(0, 1), expected=1.0, got=2.0, budget_used=41.0), "FAIL"),
        (ConventionMismatch("declared zeros, gives NaN"), "CONVENTION_MISMATCH"),
        (ImplementationCrash("exited with code 0"), "CRASH"),
        (ClaimBroken("NaN", index=(0,), expected=1.0, got=math.nan, budget_used=math.inf), "FAIL"),
        (ZeroDivisionError("division by zero"), "ERROR"),
    ],
)
def test_what_is_written_down_of_a_judgement_is_valid(outcome, verdict, tmp_path):
    """A line as it stands in `verify.jsonl`, for each way a property may end."""
    line = written(judged(outcome), tmp_path)

    assert line["verdict"] == verdict
    Draft202012Validator(SCHEMA).validate(line)


@pytest.mark.parametrize(
    "wrong", [{"verdict": "FINE"}, {"generated": -1}, {"extra": 1}, {"schema": 1}, {"claim": "a5"}, {"budget_used": "much"}]
)
def test_a_line_of_another_form_is_refused(wrong, tmp_path):
    """Unknown verdicts, keys, versions and types."""
    line = written(judged(None), tmp_path) | wrong

    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(line)


def test_the_schema_knows_our_tokens():
    """Every verdict, the version, and the form of every claim's id."""
    properties = SCHEMA["$defs"]["VerdictRecord"]["properties"]

    assert set(SCHEMA["$defs"]["Verdict"]["enum"]) == set(Verdict)
    assert properties["schema"]["enum"] == [run_folder.SCHEMA]
    validator = Draft202012Validator(properties["claim"])
    assert all(validator.is_valid(each.id) for each in CLAIMS)


def strictly(text: str) -> dict:
    """The JSON of `text`, as a reader reads it that knows no NaN and no infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text.encode("utf-8").decode("utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("budget_used", [math.inf, math.nan, 0.25, None])
def test_an_infinite_share_is_valid_json_and_read_back_as_a_number(budget_used, tmp_path):
    """A NaN where the oracle is finite is infinitely far over its budget; every JSON reader can read the line."""
    record = verdict_record(
        plain(KEY | {"seed": 0, "isolated": True, "verdict": "FAIL", "budget_used": budget_used, "seconds": math.inf})
    )

    line = strictly(encoded(record))

    Draft202012Validator(SCHEMA).validate(line)
    again = verdict_record(line)
    assert again.seconds == math.inf
    assert (again.budget_used is None) == (budget_used is None)
    assert budget_used is None or again.budget_used == pytest.approx(budget_used, nan_ok=True)


@pytest.mark.parametrize("text", ["\ud800", "\x00\x1b[2J", "<script>", "é" * 10**6])
def test_any_text_can_be_written(text, tmp_path):
    """Half a surrogate pair, control characters, markup and megabytes."""
    line = strictly(encoded(KEY | {"seed": 0, "isolated": True, "verdict": "FAIL", "message": text}))

    assert verdict_record(line).message == (text if text != "\ud800" else "\\ud800")


def test_an_error_of_the_suite_itself_is_told_from_the_implementations():
    """It is an ERROR that says so, with the place in our code; an exception of the implementation's is none of ours."""
    ours, theirs = judged(ZeroDivisionError("division by zero")), judged(ImplementationError("mine raised ZeroDivisionError"))

    assert ours.verdict == theirs.verdict == Verdict.ERROR
    assert ours.suite_error.startswith("ZeroDivisionError: division by zero (test_verdict_schema.py:")
    assert "an error of veriformer's own, not of mine:softmax" in ours.message
    assert not theirs.suite_error


def test_an_exception_without_a_text_is_a_verdict_too():
    """Its `__str__` raises."""

    class Mute(ImplementationError):
        def __str__(self):
            raise RuntimeError("no text")

    assert judged(Mute()).message == "(its text raised RuntimeError)"
