"""The lines of verify.jsonl: what a property's verdict is about, the record it becomes, and who writes it down."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from veriformer.planned import PLAN, Cell

if TYPE_CHECKING:
    from properties.claims import Property
    from reports.records import Check


def property_of(function: Any) -> "Property | None":
    """What a test function says about itself, if it is a property."""
    return getattr(function, "property_of_claim", None)


def not_judged(call: pytest.CallInfo) -> dict[str, Any]:
    """The verdict of a property that failed outside of our judging."""
    from properties.verdict.judge import suite_error

    own = suite_error(call.excinfo.value) if call.excinfo else ""
    return {"verdict": "ERROR", "message": f"veriformer could not judge it: {own}", "suite_error": own}


def line_of(item: pytest.Item, check: "Check", judged: dict[str, Any]) -> str:
    """The verdict's record as a line; one that no record can hold is a verdict too, of the suite itself."""
    from properties.verdict.judge import suite_error
    from reports.records import encoded, plain, verdict_record

    about = plain(check) | _run_of(item)
    try:
        return encoded(verdict_record(plain(about | judged)))
    except Exception as error:
        message = f"a verdict that could not be written down: {suite_error(error) or error}"
        return encoded(about | {"verdict": "ERROR", "message": message, "suite_error": message})


def cell_of(item: pytest.Item) -> Cell | None:
    """The implementation, dtype and device that a property is planned for."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("impl") if callspec is not None else None
    return found if isinstance(found, Cell) else None


def check_of(item: pytest.Item, prop: "Property", cell: Cell) -> "Check":
    """What a verdict is about, and what is planned: a property (with its own parameters) on a cell."""
    from reports.records import check

    name = getattr(item, "originalname", item.name)
    extra = item.name.removeprefix(f"{name}[").removesuffix("]").replace(str(cell), "").strip("-")
    return check({"claim": prop.claim, "property": f"{name}[{extra}]" if extra else name, **cell._asdict()})


def _run_of(item: pytest.Item) -> dict[str, Any]:
    plan, cell = item.config.stash[PLAN], cell_of(item)
    assert cell is not None
    adapter = plan.adapter(cell.implementation)
    return {"kind": "verdict", "seed": plan.seed, "isolated": bool(getattr(adapter, "isolated", False))}


def planned(items: list[pytest.Item]) -> list["Check"]:
    """What these items will give a verdict on."""
    found = [(item, property_of(getattr(item, "function", None)), cell_of(item)) for item in items]
    return [check_of(item, prop, cell) for item, prop, cell in found if prop is not None and cell is not None]


class Writer:
    """Appends each verdict to the run folder's verify.jsonl as it falls; lives in the process the user started."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        """A worker of xdist that dies takes nothing with it but the property it was at, which gets a verdict here."""
        from properties.run import run_folder
        from reports.records import plain
        from veriformer.results import Results

        function, _, parameters = crashitem.rpartition("::")[2].partition("[")
        for check in Results.of(self.folder).missing:
            cell = str(Cell(check.implementation, check.dtype, check.device))
            name, _, own = check.name.removesuffix("]").partition("[")
            if name == function and cell in parameters and own in parameters:
                message = "veriformer's own process died while this was being judged"
                line = {"seed": self.seed, "isolated": True, "verdict": "ERROR", "message": message, "suite_error": message}
                run_folder.append(self.folder / "verify.jsonl", plain(check) | {"kind": "verdict"} | line)
                return

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One line, on disk before the next property begins."""
        from properties.run import run_folder

        for name, line in report.user_properties:
            if name == "veriformer":
                run_folder.append(self.folder / "verify.jsonl", json.loads(str(line)))
