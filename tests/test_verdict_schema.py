"""The published format of a verdict line holds for every verdict there is, and for nothing else."""

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from properties import runs
from properties.claims import CLAIMS, claim
from properties.judgement import Judgement, run_property
from properties.verdicts import CandidateCrash, ClaimBroken, ConventionMismatch, Verdict, record

SCHEMA = json.loads(files("properties").joinpath("verdict.schema.json").read_text(encoding="utf-8"))
KEY = {"kind": "verdict", "claim": "A5", "property": "p", "implementation": "mine:softmax", "dtype": "float32", "device": "cpu"}


class Subject:
    """What a judgement asks of a subject."""

    name, dtype, adapter = "mine:softmax", "float32", None

    def offers(self, *_steps):
        """Everything."""
        return True


def written(judgement, folder) -> dict:
    """The line that a run folder would hold of this judgement."""
    runs.append(folder / "verify.jsonl", KEY | {"seed": 0, "isolated": True} | judgement.as_line())
    return runs.finished(folder / "verify.jsonl")[-1]


def judged(outcome) -> Judgement:
    """The judgement of a property that compares one number and then does as `outcome` says."""

    @claim("A5")
    @given(st.integers(0, 3))
    def one(subject, number):
        record.compared(1, share=0.5)
        if outcome is not None:
            raise outcome

    return run_property(one, Subject(), seed=0, examples=5)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (None, "PASS"),
        (ClaimBroken("over budget", place=(0, 1), expected=1.0, got=2.0, share=41.0), "FAIL"),
        (ConventionMismatch("declared zeros, gives NaN"), "CONVENTION_MISMATCH"),
        (CandidateCrash("exited with code 0"), "CRASH"),
        (ZeroDivisionError("division by zero"), "ERROR"),
    ],
)
def test_what_is_written_down_of_a_judgement_is_valid(outcome, verdict, tmp_path):
    """A line as it stands in `verify.jsonl`, for each way a property may end."""
    line = written(judged(outcome), tmp_path)

    assert line["verdict"] == verdict
    Draft202012Validator(SCHEMA).validate(line)


@pytest.mark.parametrize(
    "wrong", [{"verdict": "FINE"}, {"generated": -1}, {"extra": 1}, {"schema": 2}, {"claim": "a5"}, {"share": "much"}]
)
def test_a_line_of_another_form_is_refused(wrong, tmp_path):
    """Unknown verdicts, keys, versions and types."""
    line = written(judged(None), tmp_path) | wrong

    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(line)


def test_the_schema_knows_our_words():
    """Every verdict, the version, and the form of every claim's id."""
    properties = SCHEMA["properties"]

    assert set(properties["verdict"]["enum"]) == set(Verdict)
    assert properties["schema"]["const"] == runs.SCHEMA
    validator = Draft202012Validator(properties["claim"])
    assert all(validator.is_valid(each.id) for each in CLAIMS)
