"""The published detection score holds: every fault is found again where it was found, and a tenth of them is searched for anew."""

import json
from pathlib import Path
from random import Random

import pytest

from properties.evaluation.answers.catalogue import ROWS, WHENS
from properties.evaluation.detection import catalogue
from properties.evaluation.detection.cheats import BY_CHANCE, CHEATS
from properties.evaluation.detection.score import SEEDS, search_for, status
from properties.evaluation.detection.search import breaks
from properties.verdict.listing import property_named

COMMITTED = json.loads((Path(__file__).parents[2] / "properties" / "data" / "score.json").read_text(encoding="utf-8"))
ENTRIES = {each["id"]: each for each in COMMITTED["entries"]}
ANEW = [
    *Random(0).sample([fault.id for fault in catalogue.CATALOGUE if fault.id not in BY_CHANCE], len(catalogue.CATALOGUE) // 10),
    *sorted(BY_CHANCE),
]
AT_ONCE = 400  # examples: a search that took more asks half of the suite before one property breaks


def cheapest_catch(identifier: str) -> dict:
    """Of the committed searches that caught this entry, the one that took least."""
    return min((each for each in ENTRIES[identifier]["searches"] if each["caught"]), key=lambda each: each["examples"])


def test_the_score_is_of_this_catalogue():
    """Every entry was searched for at every seed; nothing correct was flagged; what was missed is said."""
    assert ENTRIES.keys() == {fault.id for fault in catalogue.CATALOGUE}
    assert {len(each["searches"]) for each in COMMITTED["entries"]} == {len(SEEDS)}
    assert COMMITTED["correct"]["flagged"] == {}


def test_processes_of_their_own_find_the_same():
    """A fault of each class and every cheat through `veriformer verify`: the same property breaks, and no base is flagged."""
    found = COMMITTED["isolated"]

    classes = sum(each["status"] == "caught" for each in COMMITTED["classes"])
    assert found["faults"] == classes + len(CHEATS) - len(BY_CHANCE)
    assert found["differ"] == found["flagged"] == []
    assert found["missing"] == found["ended_early"] == 0


def test_no_strange_answer_ends_a_run():
    """Each has the verdict that is right, and every planned check has one."""
    found = COMMITTED["answers"]

    assert found["candidates"] == len(ROWS) * len(WHENS)
    assert found["wrong"] == []
    assert found["missing"] == found["ended_early"] == 0


def test_everything_visible_is_caught():
    """No class of faults is missed at any seed, unless it is out of scope or proven equivalent, and no cheat is."""
    assert [each["class"] for each in COMMITTED["classes"] if each["status"] not in ("caught", "equivalent", "out of scope")] == []
    assert [each["id"] for each in COMMITTED["entries"] if each["status"] not in ("caught", "equivalent")] == []


def test_everything_caught_breaks_a_claim_that_its_entry_names():
    """A fault is not found by chance in a property that has nothing to do with it."""
    assert COMMITTED["not_by_name"] == []


@pytest.mark.parametrize(
    "identifier", [name for name, each in ENTRIES.items() if each["status"] == "caught" and name not in BY_CHANCE]
)
def test_a_fault_is_found_again_where_it_was_found(identifier):
    """The property and the seed that caught it catch it still."""
    fault, catch = catalogue.entry(identifier), cheapest_catch(identifier)

    found = breaks(fault, property_named(catch["property"]), catch["seed"])

    assert found, f"{catch['property']} at seed {catch['seed']} no longer catches it: run `make score`"


def effort(identifier: str) -> int:
    """The examples that the committed search from the first seed took."""
    return ENTRIES[identifier]["searches"][0]["examples"]


@pytest.mark.parametrize(
    "identifier", [pytest.param(each, marks=pytest.mark.long if effort(each) > AT_ONCE else ()) for each in ANEW]
)
def test_a_tenth_is_searched_for_anew(identifier):
    """From the first property on, as the published score was made, with the same outcome."""
    line = search_for(identifier, SEEDS[0], None)

    assert status(catalogue.entry(identifier), [line]) == ENTRIES[identifier]["status"]
