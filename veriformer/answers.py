"""The catalogue of answers put through `veriformer verify`, and what is wrong with what was said of them.

Every answer at every time is an implementation of its own, and a run takes a hundred of them: starting pytest costs more
than to verify one.
"""

import json
import tempfile
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jsonschema import Draft202012Validator

from properties.evaluation.answers import catalogue
from properties.implementations.impl import Impl
from properties.verdict.judge import Judgement, run_property
from properties.verdict.listing import claim_of, properties
from reports import records
from reports.records import Exit, Verdict
from veriformer import engine
from veriformer.isolation.in_process import InProcess
from veriformer.results import Results

FOLDER = Path(catalogue.__file__).parent  # an implementation is named from here
CHEAP, BUSY = (
    ("A8", 3),
    ("A2", 5),
)  # a claim and how many examples of each property: two properties, nine with a hundred calls and more
ASKED = {"always": CHEAP, "first": CHEAP, "once": CHEAP, "later": BUSY}


class Case(NamedTuple):
    """An answer, and when it is given."""

    answer: str
    when: str

    @property
    def target(self) -> str:
        """How a user names it, in FOLDER."""
        return f"{Path(catalogue.__file__).name}:{self.answer}__{self.when}"

    @property
    def row(self) -> catalogue.Row:
        """What it is, and what it deserves."""
        return catalogue.ROWS[self.answer]


def cases(when: str) -> list[Case]:
    """All answers that are given then."""
    return [Case(answer, when) for answer in catalogue.ROWS]


def request(given: list[Case], run: Path, seed: int = 0) -> engine.Request:
    """Cases of one time, in one run."""
    claim, examples = ASKED[given[0].when]
    targets = tuple(case.target for case in given)
    return engine.Request(targets=targets, run=run, claims=(claim,), examples=examples, seed=seed)


def measured(when: str, seed: int) -> dict[str, Any]:
    """Run them; a line of a detection score."""
    with tempfile.TemporaryDirectory() as folder:
        ended = engine.run(request(cases(when), Path(folder) / "run", seed), folder=FOLDER)
        results = Results.of(Path(folder) / "run")
    return {
        "kind": "answers",
        "id": when,
        "seed": seed,
        "candidates": len(cases(when)),
        "planned": len(results.planned),
        "missing": len(results.missing),
        "ended_early": ended.code not in (Exit.GOOD, Exit.BROKEN) or not results.planned,
        "wrong": [f"{case.target}: {complaint}" for case in cases(when) for complaint in shortcomings(of(results, case), case)],
    }


def in_this_process(case: Case, seed: int = 0) -> dict[str, Judgement]:
    """What is said of the same implementation as an object that no other process can import: by property of its claim."""
    claim, examples = ASKED[case.when]
    adapter = InProcess(case.target, getattr(catalogue, f"{case.answer}__{case.when}"), None, None)
    impl = Impl(adapter, "float32")
    asked = [test for test in properties() if claim_of(test) == claim]
    return {test.__name__: run_property(test, impl, seed=seed, examples=examples) for test in asked}


def of(results: Results, case: Case) -> Results:
    """What a run says of one implementation alone."""
    target = case.target
    return Results(
        results.folder,
        [each for each in results.findings if each.implementation == target],
        [each for each in results.planned if each.implementation == target],
        [each for each in results.follows if each.implementation == target],
    )


def exit_code(case: Case) -> Exit:
    """What a run of this implementation alone should come to."""
    return Exit.GOOD if case.row.verdict == Verdict.PASS else Exit.BROKEN


def shortcomings(results: Results, case: Case) -> list[str]:
    """What is wrong with the verdicts on one implementation: each must be PASS or what its answer deserves, and one must say so."""
    deserved, words = case.row.verdict.split(), case.row.words
    said = any(each.verdict in deserved and words in each.message for each in results.findings)
    strange = [each for each in results.findings if each.verdict not in (*deserved, Verdict.PASS) or each.suite_error]
    complaints = {
        f"expected exit code {exit_code(case)}, got {results.exit_code}": results.exit_code != exit_code(case),
        f"{len(results.missing)} of {len(results.planned)} checks have no verdict": results.missing or not results.planned,
        f"expected {case.row.verdict} of one property at least, with {words!r}": not said,
        f"expected {case.row.verdict} or PASS, got {'; '.join(map(str, strange))}": strange,
        "control characters in a verdict": acts("".join(map(str, results.findings))),
    }
    return [complaint for complaint, holds in complaints.items() if holds]


def acts(text: str) -> bool:
    """Whether a text holds a character that acts on a terminal or a page, besides the end of a line."""
    return any(unicodedata.category(character) in ("Cc", "Cf", "Cs") and character != "\n" for character in text)


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a `verify.jsonl`, read strictly. Raises ValueError for what JSON or the published schema does not allow."""
    validator = Draft202012Validator(records.schema())
    found = [json.loads(line, parse_constant=_no_json) for line in file.read_bytes().decode("utf-8").split("\n") if line]
    for line in found:
        validator.validate(line)
    return found


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
