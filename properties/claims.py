"""The catalogue: every statement of the article that a program can check, in our words, and what mathematics says about it.

At its end, marked as such, stand laws of what is not in the article: options that today's implementations of a step take.

A *law* holds. A *refuted* claim passes when its counterexample is found on the implementation at hand and the corrected law
holds there. A *study* has a table and a plot and no verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Claim:
    """One row of the catalogue. Ids that begin with X are of what lies beyond the article."""

    id: str
    step: str  # a module of `reference`
    kind: Literal["law", "refuted", "study"]
    statement: str
    formula: str
    expectation: str  # what is to be seen: that it holds, or the counterexample and what holds instead


def _read(catalogue: str) -> tuple[Claim, ...]:
    """Of each claim: id, kind and step; the statement, its formula, what is to be seen. A deeper line continues the one above."""
    paragraphs = [block for block in catalogue.strip().split("\n\n") if not block.startswith("#")]
    rows = [block.replace("\n    ", " ").splitlines() for block in paragraphs]
    return tuple(
        Claim(identifier, step, kind, *(line.strip() for line in lines))  # type: ignore[arg-type]
        for (identifier, kind, step), *lines in ((row[0].split(), *row[1:]) for row in rows)
    )


CLAIMS = _read((Path(__file__).parent / "data" / "claims.txt").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Property:
    """What a test function says about itself: the claim it carries and the steps an implementation must offer for it."""

    claim: str
    needs: tuple[str, ...]
    oracle_only: bool  # about the oracle's own worked example: planned for `reference` alone
    dtypes: tuple[str, ...] | None  # the dtypes in which the statement is made; None: every one
    shrinks: bool  # makes its failures small itself (`judgement.judge`): Hypothesis leaves them as they are


def claim(
    identifier: str,
    *,
    needs: str | Sequence[str] = (),
    oracle_only: bool = False,
    dtypes: Sequence[str] | None = None,
    shrinks: bool = False,
) -> Callable[[Test], Test]:
    """Mark a test as a property of claim `identifier`: it takes a `impl` and runs on each one that offers all of `needs`."""

    def mark(test: Test) -> Test:
        steps = (needs,) if isinstance(needs, str) else tuple(needs)
        only_in = None if dtypes is None else tuple(dtypes)
        test.property_of_claim = Property(identifier, steps, oracle_only, only_in, shrinks)  # type: ignore[attr-defined]
        return test

    return mark
