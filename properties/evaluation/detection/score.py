"""The detection score: what the suite catches of the catalogue, seed by seed, beside what usual checks catch.

One line a measurement, so that a run can be taken up again; a score is a pure function of such lines.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from properties.evaluation.baseline_checks import by_assert_close, by_twice_the_baseline, caught_by
from properties.evaluation.detection.catalogue import CATALOGUE, CLASSES, OUT_OF_SCOPE, component, entry
from properties.evaluation.detection.fault import Fault
from properties.evaluation.detection.search import Breach, breaches, breaks, first_breach, planned
from properties.verdict.listing import claim_of
from reports.records import SCHEMA

SEEDS = (0, 1, 2, 3, 4)

Line = dict[str, Any]


def bases() -> dict[str, Fault]:
    """One entry for every base, with what it offers and in which dtype, by a name of its own."""
    first = {(f.base, *f.instead.values(), frozenset(f.steps), f.dtype): f for f in reversed(CATALOGUE)}
    named = {f"{'+'.join((f.base, *f.instead.values()))}/{','.join(f.steps)}/{f.dtype}": f for f in first.values()}
    return dict(reversed(named.items()))


# Measurements ---------------------------------------------------------------------------------------------------------


def search_for(identifier: str, seed: int, examples: int | None) -> Line:
    """Look for one fault with one seed."""
    found = first_breach(entry(identifier), seed, examples)
    line = {"kind": "search", "id": identifier, "seed": seed, "caught": found is not None}
    if found is None:
        return line
    numbers = {"examples": found.examples, "seconds": round(found.seconds, 3)}
    return {
        **line,
        "claim": found.claim,
        "property": found.property,
        "verdict": found.verdict,
        **numbers,
        "message": found.message[:300],
    }


def ask_the_usual(identifier: str) -> Line:
    """What a plain comparison on normal inputs says of one fault.

    The truth of a gradient is the base's own, and so is the baseline: twice its error is 0, and the rule has no answer.
    """
    fault = entry(identifier)
    twice = None if fault.steps[0] == "gradients" else caught_by(by_twice_the_baseline, fault)
    return {"kind": "usual", "id": identifier, "assert_close": caught_by(by_assert_close, fault), "twice_the_baseline": twice}


def ask_the_named(identifier: str, examples: int | None) -> Line:
    """Whether one of the claims that must break does break, where another was the first to be seen broken."""
    fault = entry(identifier)
    for test in planned(fault):
        claim = claim_of(test)
        if claim in fault.breaks and breaks(fault, test, SEEDS[0], examples):
            return {"kind": "named", "id": identifier, "claim": claim}
    return {"kind": "named", "id": identifier, "claim": None}


def try_an_honest_one(name: str, seed: int, examples: int | None) -> Line:
    """Run every planned property on a base: none may break."""
    fault = bases()[name]
    found = list(breaches(lambda: fault.implementation(wrong=False), fault, seed, examples))
    flagged = [f"{each.property}: {each.message[:200]}" for each in found if isinstance(each, Breach)]
    return {"kind": "correct", "id": name, "seed": seed, "properties": len(found), "flagged": flagged}


def give_a_chance(claim: str, examples: int | None) -> Line:
    """Try a claim that was never the first to catch anything on every entry it is planned for, until it catches one."""
    line = {"kind": "chance", "id": claim, "caught": None}
    for fault in CATALOGUE:
        for test in planned(fault):
            if claim_of(test) != claim or fault.equivalent:
                continue
            if breaks(fault, test, SEEDS[0], examples):
                return {**line, "caught": fault.id, "property": test.__name__}
    return line


def claims_planned() -> set[str]:
    """Every claim with a property that is planned for an entry of the catalogue."""
    return {claim_of(test) for fault in CATALOGUE for test in planned(fault)}


def not_by_name(lines: list[Line]) -> list[str]:
    """The entries that were caught, but never first by a claim that their data names."""
    first = defaultdict(set)
    for line in lines:
        if line["kind"] == "search" and line["caught"]:
            first[line["id"]].add(line["claim"])
    return sorted(identifier for identifier, claims in first.items() if not claims & set(entry(identifier).breaks))


# The score ------------------------------------------------------------------------------------------------------------


def status(fault: Fault, searches: Iterable[Line]) -> str:
    """caught: at every seed; missed: at one at least; equivalent: not to be caught, and flagged where it was."""
    caught = [line["caught"] for line in searches]
    if fault.equivalent:
        return "flagged" if any(caught) else "equivalent"
    return "caught" if caught and all(caught) else "missed"


def score(lines: list[Line]) -> dict[str, Any]:
    """Everything that is published, from the lines of a run."""
    searches, usual = defaultdict(list), {}
    for line in lines:
        if line["kind"] == "search":
            searches[line["id"]].append(line)
        elif line["kind"] == "usual":
            usual[line["id"]] = line
    measured = [fault for fault in CATALOGUE if fault.id in searches]
    entries = [
        _entry(fault, sorted(searches[fault.id], key=lambda line: line["seed"]), usual.get(fault.id, {})) for fault in measured
    ]
    correct = [line for line in lines if line["kind"] == "correct"]
    first = {line["claim"] for each in searches.values() for line in each if line["caught"]}
    later = {line["id"]: line["caught"] for line in lines if line["kind"] == "chance"}
    return {
        "schema": SCHEMA,
        "seeds": sorted({line["seed"] for each in searches.values() for line in each}),
        "entries": entries,
        "classes": _classes(entries),
        "out_of_scope": OUT_OF_SCOPE,
        "by_seed": _by_seed(searches),
        "usual": usually(entries),
        "cheats": [
            sum(each["status"] == "caught" for each in entries if each["class"] == "cheat"),
            sum(f.fault_class == "cheat" for f in measured),
        ],
        "not_by_name": sorted(line["id"] for line in lines if line["kind"] == "named" and line["claim"] is None),
        "correct": {
            "variants": len({line["id"] for line in correct}),
            "checks": sum(line["properties"] for line in correct),
            "flagged": {line["id"]: line["flagged"] for line in correct if line["flagged"]},
        },
        "claims": {
            "caught first": sorted(first),
            "caught later": {claim: caught for claim, caught in sorted(later.items()) if caught},
            "never caught anything": sorted(claim for claim, caught in later.items() if not caught),
        },
        "isolated": _isolated([line for line in lines if line["kind"] == "isolated"]),
        "answers": _answers([line for line in lines if line["kind"] == "answers"]),
    }


def _isolated(lines: list[Line]) -> dict[str, Any]:
    """The sample of faults that was verified in processes of their own, and where that differs from what was found in ours."""
    faults = [identifier for line in lines for identifier in line["faults"]]
    return {
        **_ran(lines),
        "faults": len(faults),
        "differ": sorted(set(faults) - {identifier for line in lines for identifier in line["caught"]}),
        "flagged": sorted(identifier for line in lines for identifier in line["flagged"]),
    }


def _answers(lines: list[Line]) -> dict[str, Any]:
    """What became of the catalogue of answers."""
    return {
        **_ran(lines),
        "candidates": sum(line["candidates"] for line in lines),
        "times": sorted(line["id"] for line in lines),
        "wrong": sorted(complaint for line in lines for complaint in line["wrong"]),
    }


def _ran(lines: list[Line]) -> dict[str, int]:
    """How many runs there were and how many ended early, and how many checks were planned and have no verdict."""
    counts = {name: sum(line[name] for line in lines) for name in ("planned", "missing", "ended_early")}
    return {"runs": len(lines), **counts}


def _entry(fault: Fault, searches: list[Line], usual: Line) -> dict[str, Any]:
    said = ("seed", "caught", "claim", "property", "verdict", "examples", "seconds")
    return {
        "id": fault.id,
        "class": fault.fault_class,
        "component": component(fault.fault_class),
        "step": fault.steps[0],
        "dtype": fault.dtype,
        "status": status(fault, searches),
        "searches": [{name: line[name] for name in said if name in line} for line in searches],
        "assert_close": usual.get("assert_close"),
        "twice_the_baseline": usual.get("twice_the_baseline"),
    }


def _classes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each class its worst entry: a class is caught where all its entries are."""
    rows = []
    for part, classes in CLASSES.items():
        for name in classes:
            own = [each for each in entries if each["class"] == name]
            statuses = {each["status"] for each in own}
            worst = next((each for each in ("flagged", "missed", "caught", "equivalent") if each in statuses), "not measured")
            said = "out of scope" if name in OUT_OF_SCOPE else worst
            rows.append({"component": part, "class": name, "status": said, "entries": len(own), **usually(own)})
    return rows


def usually(entries: list[dict[str, Any]]) -> dict[str, list[int]]:
    """For both usual checks, how many of the visible entries they caught and on how many they were tried."""
    visible = [each for each in entries if not entry(each["id"]).equivalent]
    said = {rule: [each[rule] for each in visible if each[rule] is not None] for rule in ("assert_close", "twice_the_baseline")}
    return {rule: [sum(answers), len(answers)] for rule, answers in said.items()}


def _by_seed(searches: dict[str, list[Line]]) -> list[dict[str, Any]]:
    """How many entries each seed caught, the worst seed first."""
    visible = [line for identifier, each in searches.items() if not entry(identifier).equivalent for line in each]
    rows = []
    for seed in sorted({line["seed"] for line in visible}):
        of_seed = [line for line in visible if line["seed"] == seed]
        missed = sorted(line["id"] for line in of_seed if not line["caught"])
        rows.append({"seed": seed, "caught": len(of_seed) - len(missed), "of": len(of_seed), "missed": missed})
    return sorted(rows, key=lambda row: row["caught"])


def is_good(found: dict[str, Any]) -> bool:
    """Everything that can be seen was caught at every seed and in every process, nothing correct flagged, no run ended early."""
    ran = [found["isolated"], found["answers"]]
    whole = not any(each["missing"] or each["ended_early"] for each in ran)
    alike = not any((found["isolated"]["differ"], found["isolated"]["flagged"], found["answers"]["wrong"]))
    caught = not any(each["status"] in ("missed", "flagged") for each in found["entries"])
    return caught and not found["correct"]["flagged"] and whole and alike
