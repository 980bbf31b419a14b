"""Show a statement refuted on an implementation: search for the smallest input that contradicts it."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure, Found, NoSuchExample, UnsatisfiedAssumption

from properties.verdicts import ClaimBroken, record

Case = TypeVar("Case")


def smallest_counterexample(cases: st.SearchStrategy[Case], contradicts: Callable[[Case], bool], what: str) -> Case:
    """The smallest case that contradicts the statement; raises ClaimBroken where none is found: nothing is refuted then.

    Where the implementation does not take some of the cases none may be found, and the whole search counts as refused.
    """
    refused = record.current.refused
    try:
        found = find(cases, contradicts, settings=settings(max_examples=1000, database=None), random=Random(0))
    except NoSuchExample:
        if record.current.refused > refused:
            raise UnsatisfiedAssumption from None
        raise ClaimBroken(f"expected to find {what}, found none in 1000 tries") from None
    except FlakyFailure as error:
        if not isinstance(error.exceptions[0], Found):
            raise
        raise ClaimBroken(f"not the same twice: {what} was found, and not when the same was asked again") from None
    record.compared(1)
    return found
