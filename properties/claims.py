"""The catalogue: every statement of the article that a program can check, in our words, and what mathematics says about it.

A *law* holds. A *refuted* claim passes when its counterexample is found on the implementation at hand and the corrected law
holds there. A *study* has a table and a plot and no verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Claim:
    """One row of the catalogue."""

    id: str
    step: str  # a module of `reference`
    kind: Literal["law", "refuted", "study"]
    statement: str
    formula: str
    expectation: str  # what is to be seen: that it holds, or the counterexample and what holds instead


CLAIMS: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Property:
    """What a test function says about itself: the claim it carries and the steps an implementation must offer for it."""

    claim: str
    needs: tuple[str, ...]
    oracle_only: bool  # about the oracle's own worked example: planned for `reference` alone
    dtypes: tuple[str, ...] | None  # the dtypes in which the statement is made; None: every one


def claim(
    identifier: str, *, needs: str | Sequence[str] = (), oracle_only: bool = False, dtypes: Sequence[str] | None = None
) -> Callable[[Test], Test]:
    """Mark a test as a property of claim `identifier`: it takes a `subject` and runs on each one that offers all of `needs`."""

    def mark(test: Test) -> Test:
        steps = (needs,) if isinstance(needs, str) else tuple(needs)
        test.property_of_claim = Property(identifier, steps, oracle_only, None if dtypes is None else tuple(dtypes))  # type: ignore[attr-defined]
        return test

    return mark
