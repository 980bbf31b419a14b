"""From the lines of a run to a mark: a pure function of them.

A fault is noticed by a test that fails with it and passes with its own correct base: a test that fails for both tells nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from properties.evaluation.detection.catalogue import component
from properties.evaluation.detection.fault import Fault
from properties.evaluation.users_tests.stand_ins import base_of
from properties.evaluation.users_tests.witness import Kernel
from reports.tests_score_records import ScoredCorrect, ScoredFault, ScoredTest, TestsScore

Line = dict[str, Any]


def failing(line: Line) -> dict[str, str]:
    """The tests that failed in a run, each with what it said; one in which the run came to its end early is among them."""
    failed = dict(line["failed"])
    if line["ended"] and line["at"] is not None:
        failed.setdefault(line["at"], line["ended"])
    return failed


def noticed(line: Line, bases: Mapping[str, Line], fault: Fault) -> dict[str, str]:
    """The tests that tell a fault from its correct base."""
    base = failing(bases[base_of(fault)])
    return {test: said for test, said in failing(line).items() if test not in base}


def marked(
    *,
    replaces: str,
    tests: Iterable[str],
    kernel: Kernel,
    faults: Iterable[Fault],
    original: Line,
    runs: Mapping[str, Line],
    bases: Mapping[str, Line],
    witnesses: Mapping[str, Line],
) -> TestsScore:
    """The whole score. `runs` are those of faults, cheats and crude answers by id; a fault without one is not shown."""
    failed_for: dict[str, list[str]] = {}
    for name, line in [*((f"correct {name}", line) for name, line in bases.items()), *runs.items()]:
        for test in failing(line):
            failed_for.setdefault(test, []).append(name)
    calls, answered = original["seen"]["calls"], Counter[str]()
    for line in runs.values():
        answered |= Counter(line["seen"]["answered"] if line["seen"] else {})
    domain = kernel.domain
    return TestsScore(
        replaces=replaces,
        step=kernel.step,
        tests=list(tests),
        faults=[_fault(fault, runs.get(fault.id), bases, witnesses.get(fault.id)) for fault in faults],
        each_test=[
            ScoredTest(
                id=test,
                calls=calls.get(test, 0),
                answered=answered[test],
                failed_for=failed_for.get(test, []),
                skipped=original["skipped"].get(test, ""),
            )
            for test in original["items"]
        ],
        correct=[
            ScoredCorrect(id=name, failed=dict(line["failed"]), asked=_asked(line), ended=line["ended"])
            for name, line in bases.items()
        ],
        options=list(kernel.options),
        dtypes=list(kernel.dtypes),
        conventions={name: choice for name, choice in asdict(kernel.conventions).items() if choice}
        | ({"axes": "b n h d"} if kernel.tokens_first else {}),
        domain=str(domain) if domain else "",
        calls=sum(calls.values()),
        unread=original["seen"]["unread"],
        seconds=original["seconds"],
    )


def _asked(line: Line) -> int:
    return line["seen"]["read"] if line["seen"] else 0


def _fault(fault: Fault, line: Line | None, bases: Mapping[str, Line], told: Line | None) -> ScoredFault:
    about: dict[str, Any] = {
        "id": fault.id,
        "kind": "cheat" if component(fault.fault_class) == "cheat" else "fault",
        "component": component(fault.fault_class),
        "fault_class": fault.fault_class,
        "shows": fault.shows,
        "reports": list(fault.reports),
    }
    if line is None:
        return ScoredFault(**about, status="not shown", why=(told or {}).get("why", ""))
    seen = line["seen"] or {"differed": 0, "largest": None, "read": 0}
    about |= {"differed": seen["differed"], "largest": seen["largest"], "asked": seen["read"]}
    if telling := noticed(line, bases, fault):
        test, said = next(iter(telling.items()))
        return ScoredFault(**about, status="noticed", test=test, said=said)
    if told is None or not told["shown"]:
        return ScoredFault(**about, status="not shown", why=(told or {}).get("why", ""))
    about |= {"input": told["input"], "dtype": told["dtype"], "found_by": told["property"]}
    apart = not failing(line)
    return ScoredFault(**about, status="not told apart" if not apart else "got through" if seen["read"] else "not asked")
