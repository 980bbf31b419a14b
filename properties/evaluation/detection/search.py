"""Look for a fault as the suite would look for it in anybody's implementation: property after property, until one breaks."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis.errors import FlakyFailure

from properties.claims import Property
from properties.evaluation.detection.fault import Fault, Implementation
from properties.implementations.impl import Impl
from properties.steps import STEPS
from properties.verdict.judge import Judgement, run_property
from properties.verdict.listing import Test, claim_of, properties
from properties.verdicts import ImplementationError
from reports.records import BROKEN, Verdict


@dataclass(frozen=True)
class Breach:
    """A property that an implementation broke, and what it took to see it."""

    claim: str
    property: str
    verdict: str
    message: str
    examples: int
    seconds: float


def planned(fault: Fault) -> list[Test]:
    """What would be run on an implementation that offers the fault's steps: first what asks for its first step, and for no more."""
    offered = {step: place for place, step in enumerate(fault.steps)}

    def asks(test: Test) -> Property:
        return test.property_of_claim  # type: ignore[attr-defined]

    fitting = [
        test
        for test in properties()
        if asks(test).needs
        and not asks(test).oracle_only
        and set(asks(test).needs) <= offered.keys()
        and fault.dtype in (asks(test).dtypes or (fault.dtype,))
    ]

    row = STEPS[fault.steps[0].partition(".")[0]].row

    def distance(test: Test) -> tuple[bool, int, int, bool]:
        needs = asks(test).needs
        elsewhere = not test.__module__.endswith(f"test_{row}")
        return fault.steps[0] not in needs, len(needs), max(offered[step] for step in needs), elsewhere

    return sorted(fitting, key=distance)


def judged(implementation: Any, dtype: str, test: Test, seed: int, examples: int | None = None) -> Judgement:
    """One property on one implementation, with the first counterexample that comes."""
    return run_property(test, Impl(implementation, dtype), seed=seed, examples=examples, small=False)


def is_breach(judgement: Judgement, implementation: Implementation) -> bool:
    """Whether the implementation broke the property. Raises RuntimeError where the property itself went wrong: that is no catch."""
    if judgement.verdict not in BROKEN:
        return False
    if judgement.verdict is Verdict.ERROR and not _is_its_own(judgement.error, implementation):
        raise RuntimeError(f"not an error of {implementation.name}: {judgement.message}") from judgement.error
    return True


def _is_its_own(error: BaseException | None, implementation: Implementation) -> bool:
    """Whether an exception says that the implementation erred, or was raised in its text."""
    if isinstance(error, FlakyFailure) and error.exceptions:
        error = error.exceptions[0]
    raised_in = traceback.extract_tb(error.__traceback__) if error is not None else []
    return isinstance(error, ImplementationError) or any(frame.filename == implementation.file for frame in raised_in)


def breaches(
    make: Callable[[], Implementation], fault: Fault, seed: int, examples: int | None = None
) -> Iterator[Breach | Judgement]:
    """For every planned property its breach, or the judgement that let it pass; each gets an implementation without a past."""
    spent, seconds = 0, 0.0
    for test in planned(fault):
        implementation = make()
        judgement = judged(implementation, fault.dtype, test, seed, examples)
        spent, seconds = spent + judgement.generated, seconds + judgement.seconds
        if is_breach(judgement, implementation):
            yield Breach(claim_of(test), test.__name__, judgement.verdict.value, judgement.message, spent, seconds)
        else:
            yield judgement


def breaks(fault: Fault, test: Test, seed: int, examples: int | None = None) -> bool:
    """Whether one property finds a fault."""
    implementation = fault.implementation()
    return is_breach(judged(implementation, fault.dtype, test, seed, examples), implementation)


def first_breach(fault: Fault, seed: int, examples: int | None = None) -> Breach | None:
    """The first planned property that the fault breaks; None if it gets through all of them."""
    return next((each for each in breaches(fault.implementation, fault, seed, examples) if isinstance(each, Breach)), None)
