"""The page of a score of a user's tests, one file, offline, no script, and its summary in Markdown: pure functions of it."""

from itertools import groupby
from typing import Any

from reports.render import SUMMARY_LIMIT, environment, fitting
from reports.tests_score_records import ScoredFault, TestsScore
from reports.words import plural

TEMPLATE, SUMMARY = "tests_score.html.jinja2", "tests_score.md.jinja2"


def page(found: TestsScore, command: str) -> str:
    """The HTML; `command` makes the score again."""
    return environment().get_template(TEMPLATE).render(_context(found, command))


def summary(found: TestsScore, command: str) -> str:
    """The Markdown, short enough for the page of a CI job."""
    return fitting(SUMMARY, _context(found, command), SUMMARY_LIMIT)


def _context(found: TestsScore, command: str) -> dict[str, Any]:
    noticed, of = found.of("fault")
    return {
        "found": found,
        "headline": f"{noticed} of {plural(of, 'fault')} noticed",
        "cheats": found.of("cheat"),
        "command": command,
        "components": _by_component(found.survivors),
        "noticed": [fault for fault in found.faults if fault.status == "noticed"],
        "tone": "good" if found.good else "bad",
    }


def _by_component(faults: list[ScoredFault]) -> list[tuple[str, list[ScoredFault]]]:
    order = list(dict.fromkeys(fault.component for fault in faults))
    ordered = sorted(faults, key=lambda fault: order.index(fault.component))
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda fault: fault.component)]
