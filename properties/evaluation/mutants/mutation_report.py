"""A detection score in the format of mutation-testing-elements (schema version 2), which existing viewers open."""

from pathlib import Path
from typing import Any

from properties.evaluation.detection.catalogue import entry
from properties.evaluation.detection.fault import RIGHT, Fault
from properties.verdict.listing import property_named

STATUS = {"caught": "Killed", "missed": "Survived", "equivalent": "Ignored", "flagged": "Killed"}


def mutation_report(found: dict[str, Any]) -> dict[str, Any]:
    """The bases as files, every fault as a mutant in one of them, every property that caught one as a test."""
    files: dict[str, dict[str, Any]] = {}
    killers: dict[str, dict[str, Any]] = {}
    for each in found["entries"]:
        path = _file_of(entry(each["id"]))
        name = f"properties/evaluation/correct/{path.name}"
        text = path.read_text(encoding="utf-8")
        file = files.setdefault(name, {"language": "python", "source": text, "mutants": []})
        file["mutants"].append(_mutant(each, text))
        for search in each["searches"]:
            if search["caught"]:
                test = search["property"]
                module = f"{property_named(test).__module__.replace('.', '/')}.py"
                killers.setdefault(module, {"tests": {}})["tests"][test] = {"id": test, "name": f"{search['claim']}: {test}"}
    tests = {module: {"tests": list(each["tests"].values())} for module, each in killers.items()}
    return {"schemaVersion": "2", "thresholds": {"high": 100, "low": 95}, "files": files, "testFiles": tests}


def _file_of(fault: Fault) -> Path:
    """The file of `right` that holds the statement."""
    holding = [path for path in sorted(RIGHT.glob("*.py")) if fault.right in path.read_text(encoding="utf-8")]
    own = [path for path in holding if path.stem in (fault.base, *fault.instead.values())]
    return (own or holding)[0]


def _mutant(each: dict[str, Any], text: str) -> dict[str, Any]:
    fault = entry(each["id"])
    start = text.index(fault.right)
    killed_by = sorted({search["property"] for search in each["searches"] if search["caught"]})
    return {
        "id": fault.id,
        "mutatorName": fault.fault_class,
        "description": f"Shows: {fault.shows}. {' '.join(fault.reports)}".strip(),
        "replacement": fault.wrong,
        "location": {"start": _place(text, start), "end": _place(text, start + len(fault.right))},
        "status": STATUS[each["status"]],
        "statusReason": fault.equivalent,
        "killedBy": killed_by,
    }


def _place(text: str, offset: int) -> dict[str, int]:
    before = text[:offset]
    return {"line": before.count("\n") + 1, "column": offset - before.rfind("\n")}
