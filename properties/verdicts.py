"""What can be said of a claim and an implementation, and the bookkeeping of one running property.

A property passes, or raises one of the exceptions below; `record` counts what it compared on the way, since a property that
compared nothing proves nothing (VACUOUS).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class ClaimBroken(AssertionError):
    """The implementation contradicts the claim: verdict FAIL.

    `share` is the error as a multiple of what rounding allows (> 1), `place` the index of the worst component.
    """

    def __init__(
        self,
        message: str,
        *,
        index: tuple[int, ...] | str | None = None,
        expected: Any = None,
        got: Any = None,
        budget_used: float | None = None,
    ) -> None:
        super().__init__(message)
        self.index, self.expected, self.got, self.budget_used = index, expected, got, budget_used


class ConventionMismatch(AssertionError):
    """The implementation follows another convention than it declares."""


class ImplementationError(Exception):
    """The implementation raised, changed its input, or returned something of the wrong type, shape or dtype: verdict ERROR."""


class ImplementationTimeout(Exception):
    """The implementation did not answer within the time allowed for one call."""


class ImplementationCrash(Exception):
    """The implementation's process died: of a signal, `os._exit`, or exhausted memory."""


class NotOffered(Exception):
    """The implementation offers the step, but not with these arguments (a mask per head, say): the example counts as refused."""


REFUSALS_TOLD = 3  # different words for what an implementation does not take


@dataclass
class Record:
    """What one property did so far: one implementation, all its examples."""

    generated: int = 0
    filtered: int = 0
    answered: int = 0  # calls that the implementation took
    refused: int = 0  # examples with arguments the implementation does not take (`NotOffered`)
    refusals: list[str] = field(default_factory=list)  # in its own words, each once
    with_itself: int = 0  # answers of the oracle's own that equal the oracle's: not counted as compared
    compared: int = 0  # elements of results that were held against something
    undecidable: int = 0  # elements no correct computation can be held to (overflow of a simulated run)
    mostly_undecidable: int = 0  # cases with more than 1 % of their elements undecidable
    budget_used: float = 0.0  # the largest error seen, as a share of the budget
    suspects: list[str] = field(default_factory=list)
    counterexamples: list[str] = field(default_factory=list)

    @property
    def why_refused(self) -> str:
        """What the implementation says of the examples it does not take."""
        tokens = "; ".join(filter(None, self.refusals[:REFUSALS_TOLD]))
        return f"refused: {tokens}" if tokens else "refused, without a word why"


class Recorder:
    """The record of the property that is running now; outside of one, everything is counted and forgotten."""

    def __init__(self) -> None:
        self.current = Record()

    def start(self) -> Record:
        """Begin the record of a new property."""
        self.current = Record()
        return self.current

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is compared in here is not counted: a fault found is being made small."""
        kept, self.current = self.current, Record()
        try:
            yield
        finally:
            self.current = kept

    def compared(self, elements: int, *, undecidable: int = 0, budget_used: float = 0.0) -> None:
        """Count one comparison of `elements` numbers, of which `undecidable` could not be judged; `share` ≤ 1 is within budget."""
        self.current.compared += elements - undecidable
        self.current.undecidable += undecidable
        if undecidable * 100 > elements:
            self.current.mostly_undecidable += 1
        if np.isfinite(budget_used):
            self.current.budget_used = max(self.current.budget_used, float(budget_used))

    def answered(self) -> None:
        """Count a call with arguments that the implementation takes."""
        self.current.answered += 1

    def refused(self, why: str = "") -> None:
        """Count an example with arguments that the implementation does not take, and what it says of them."""
        self.current.refused += 1
        if why not in self.current.refusals:
            self.current.refusals.append(why)

    def suspect(self, message: str) -> None:
        """Note a score between the look-again and the fail mark after escalation."""
        self.current.suspects.append(message)

    def counterexample(self, text: str) -> None:
        """Keep the counterexample that shows a refuted claim refuted; the last one kept is the one reported."""
        self.current.counterexamples.append(text)


record = Recorder()
