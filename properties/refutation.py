"""Show a statement refuted on an implementation: search for the smallest input that contradicts it."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from properties.verdicts import ClaimBroken, record

Case = TypeVar("Case")


def smallest_counterexample(cases: st.SearchStrategy[Case], contradicts: Callable[[Case], bool], what: str) -> Case:
    """The smallest case that contradicts the statement; raises ClaimBroken where none is found: nothing is refuted then."""
    try:
        found = find(cases, contradicts, settings=settings(max_examples=1000, database=None), random=Random(0))
    except NoSuchExample:
        raise ClaimBroken(f"expected to find {what}, found none in 1000 tries") from None
    record.compared(1)
    return found
