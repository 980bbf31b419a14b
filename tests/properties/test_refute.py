"""What refutes a statement must do so again: an implementation that answers in two ways is at fault, and not the suite."""

from itertools import chain, repeat

import pytest
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from properties.verdict.refute import smallest_counterexample
from properties.verdicts import ClaimBroken, ImplementationError

NUMBERS = st.integers(0, 100)


def test_the_smallest_case_is_found():
    """By the order in which Hypothesis makes cases smaller."""
    assert smallest_counterexample(NUMBERS, lambda n: n > 6, "a number above 6") == 7


def test_none_is_a_broken_claim():
    """Nothing is refuted then."""
    with pytest.raises(ClaimBroken, match="expected to find a number above 100, found none"):
        smallest_counterexample(NUMBERS, lambda n: n > 100, "a number above 100")


def test_a_case_that_contradicts_at_times_is_a_broken_claim():
    """It was found, and asked again it was none: no error of the suite's own."""
    answers = chain([True], repeat(False))

    with pytest.raises(ClaimBroken, match="not the same twice: a number was found, and not when the same was asked again"):
        smallest_counterexample(NUMBERS, lambda _: next(answers), "a number")


def test_an_error_of_the_implementation_at_times_stays_its_error():
    """Whatever it raised."""
    turns = chain([True], repeat(False))

    def contradicts(_: int) -> bool:
        if next(turns):
            raise ImplementationError("not today")
        return False

    with pytest.raises(FlakyFailure) as caught:
        smallest_counterexample(NUMBERS, contradicts, "a number")
    assert isinstance(caught.value.exceptions[0], ImplementationError)
