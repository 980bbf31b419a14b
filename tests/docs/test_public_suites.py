"""Public test suites: what was found is of the suites that are scored, and the page has each of them."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from reports.tests_score_records import ScoredCorrect, ScoredFault, ScoredTest, TestsScore

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "public_suites" / "score.py"
FOUND = json.loads(SCRIPT.with_name("found.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "public-suites.md").read_text(encoding="utf-8")


def loaded(path: Path):
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


score = loaded(SCRIPT)


@pytest.mark.parametrize("name", score.SUITES)
def test_what_was_found_is_of_the_suite_that_is_scored(name):
    """In its versions, of its kernel; and what was not noticed got through, each with the input that would have told."""
    suite, found = score.SUITES[name], FOUND[name]

    assert (found["packages"], found["replaces"], found["step"]) == ([*suite.packages], suite.replaces, suite.step)
    for kind, counted in (("fault", "faults"), ("cheat", "cheats")):
        noticed, of = found[counted]
        assert sum(each["kind"] == kind for each in found["survivors"]) == of - noticed
    assert all(each["input"] and each["shows"] and each["how"] for each in found["survivors"])


def test_the_page_has_every_suite_under_its_name():
    """With the table that is made of what was found."""
    sections = re.findall(r"^## (\S+)$.*?^<!-- generated: (\w+) -->$", PAGE.partition("## Suites")[2], re.MULTILINE | re.DOTALL)

    assert list(FOUND) == list(score.SUITES)
    assert sections == [(name, name.replace("-", "_")) for name in FOUND]


def test_a_number_on_the_page_is_that_of_what_was_found():
    """`18 of 52` of a suite's section is its faults, or its cheats."""
    for name, each in FOUND.items():
        section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        said = re.findall(r"(\d+) of (\d+) (faults|cheats)", section)
        assert all(each[kind] == [int(noticed), int(of)] for noticed, of, kind in said), name


def test_a_score_is_made_compact():
    """Counts, and of faults those that got through."""
    about = {"component": "softmax", "fault_class": "softmax-no-or-wrong-max", "shows": "a score above 88"}
    faults = [
        ScoredFault(id="one", kind="fault", status="noticed", test="test_a", **about),
        ScoredFault(id="two", kind="fault", status="got through", input="scores 1×1 of [89.0]", dtype="float32", asked=3, **about),
        ScoredFault(id="three", kind="fault", status="not shown", why="nothing shows it", **about),
    ]
    tests = [
        ScoredTest(id="test_a", calls=2, answered=2, failed_for=["one"]),
        ScoredTest(id="test_b", calls=1, answered=1, failed_for=[]),
        ScoredTest(id="test_c", calls=0, answered=0, failed_for=[], skipped="needs a GPU"),
    ]
    scored = TestsScore(
        replaces="kernels:softmax",
        step="softmax",
        tests=["tests"],
        faults=faults,
        each_test=tests,
        correct=[ScoredCorrect(id="softmax", failed={})],
        options=[],
        dtypes=["float32"],
        conventions={},
        calls=3,
    )

    made = score.compact(score.SUITES["scipy-softmax"], scored)

    assert [made[name] for name in ("tests", "calling", "skipped", "cannot_fail", "correct")] == [3, 2, 1, 1, 1]
    assert (made["faults"], made["cheats"], made["wronged"], made["not_shown"]) == ((1, 2), (0, 0), {}, ["three"])
    assert made["survivors"] == [
        {
            "id": "two",
            "kind": "fault",
            "shows": "a score above 88",
            "how": "no call of these tests shows it",
            "dtype": "float32",
            "input": "scores 1×1 of [89.0]",
        }
    ]
