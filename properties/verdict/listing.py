"""Every property of the suite, found in its files: for whoever runs them outside of pytest."""

import importlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from properties.verdict import profiles

Test = Callable[..., object]

WITHOUT_OWN = ("test_again",)  # repeats, for pytest alone, what failed in an earlier run in the user's folder


@cache
def properties() -> tuple[Test, ...]:
    """Every property of the suite, in the order of its files; files without claims are about the suite itself."""
    profiles.register()  # a property takes what is then in force when it is imported, in another process too
    files = sorted(path for path in Path(__file__).parents[1].glob("test_*.py") if path.stem not in WITHOUT_OWN)
    modules = [importlib.import_module(f"properties.{path.stem}") for path in files]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "property_of_claim")]
    return tuple(case for test in dict.fromkeys(found) for case in _cases(test))


def _cases(test: Any) -> list[Test]:
    """The test itself, or one for each value that pytest would hand it besides the implementation."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    if not marks:
        return [test]
    if len(marks) > 1 or hasattr(test, "hypothesis"):
        raise TypeError(f"{test.__name__}: expected at most one parametrize, and none on a property that draws")
    (argument, values), cases = marks[0].args, []
    for value in values:
        case: Any = partial(test, **{argument: value})
        case.__name__, case.__module__ = f"{test.__name__}[{value}]", test.__module__
        case.property_of_claim = test.property_of_claim
        cases.append(case)
    return cases


def property_named(name: str) -> Test:
    """The property of that name. Raises KeyError where there is none."""
    return {test.__name__: test for test in properties()}[name]


def claim_of(test: Test) -> str:
    """The claim that a property carries."""
    return test.property_of_claim.claim  # type: ignore[attr-defined]
