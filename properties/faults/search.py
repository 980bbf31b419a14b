"""Look for a fault as the suite would look for it in anybody's implementation: property after property, until one breaks."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import Phase

from properties.claims import Property
from properties.faults.fault import Fault, Implementation
from properties.implementations.subject import Subject
from properties.judgement import Judgement, run_property
from properties.steps import STEPS
from properties.verdicts import BROKEN

Test = Callable[..., object]


@dataclass(frozen=True)
class Breach:
    """A property that an implementation broke, and what it took to see it."""

    claim: str
    property: str
    verdict: str
    message: str
    examples: int
    seconds: float


@cache
def properties() -> tuple[Test, ...]:
    """Every property of the suite, in the order of its files; files without claims are about the suite itself."""
    files = sorted(path for path in Path(__file__).parents[1].glob("test_*.py") if "@claim(" in path.read_text(encoding="utf-8"))
    modules = [importlib.import_module(f"properties.{path.stem}") for path in files]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "property_of_claim")]
    return tuple(dict.fromkeys(found))


def property_named(name: str) -> Test:
    """The property of that name. Raises KeyError where there is none."""
    return {test.__name__: test for test in properties()}[name]


def claim_of(test: Test) -> str:
    """The claim that a property carries."""
    return test.property_of_claim.claim  # type: ignore[attr-defined]


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

    def distance(test: Test) -> tuple[bool, int, int, bool]:
        needs = asks(test).needs
        elsewhere = not test.__module__.endswith(f"test_{STEPS[fault.steps[0]].row}")
        return fault.steps[0] not in needs, len(needs), max(offered[step] for step in needs), elsewhere

    return sorted(fitting, key=distance)


@contextmanager
def without_shrinking(test: Any) -> Iterator[None]:
    """While this lasts, Hypothesis stops at the first example that breaks `test` and leaves it as large as it is."""
    if not hasattr(test, "hypothesis"):
        yield
        return
    before = test._hypothesis_internal_use_settings  # noqa: SLF001 (as in judgement.drawing)
    test._hypothesis_internal_use_settings = hypothesis.settings(before, phases=(Phase.explicit, Phase.generate))  # noqa: SLF001
    try:
        yield
    finally:
        test._hypothesis_internal_use_settings = before  # noqa: SLF001


def judged(implementation: Any, dtype: str, test: Test, seed: int, examples: int | None = None) -> Judgement:
    """One property on one implementation, with the first counterexample that comes."""
    with without_shrinking(test):
        return run_property(test, Subject(implementation, dtype), seed=seed, examples=examples)


def breaches(
    make: Callable[[], Implementation], fault: Fault, seed: int, examples: int | None = None
) -> Iterator[Breach | Judgement]:
    """For every planned property its breach, or the judgement that let it pass; each gets an implementation without a past."""
    spent, seconds = 0, 0.0
    for test in planned(fault):
        judgement = judged(make(), fault.dtype, test, seed, examples)
        spent, seconds = spent + judgement.generated, seconds + judgement.seconds
        if judgement.verdict in BROKEN:
            yield Breach(claim_of(test), test.__name__, judgement.verdict.value, judgement.message, spent, seconds)
        else:
            yield judgement


def first_breach(fault: Fault, seed: int, examples: int | None = None) -> Breach | None:
    """The first planned property that the fault breaks; None if it gets through all of them."""
    return next((each for each in breaches(fault.implementation, fault, seed, examples) if isinstance(each, Breach)), None)
