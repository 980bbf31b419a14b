"""What a run found: the lines of its `verify.jsonl` against what its manifest planned."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from veriformer import packages

if TYPE_CHECKING:
    from reports import records
else:
    records = packages.standing_alone("reports.records")


@dataclass(frozen=True)
class Results:
    """The verdicts of a run, and what it planned and did not do."""

    folder: Path
    findings: list[records.VerdictRecord]
    planned: list[records.Check]
    follows: list[records.Follows] = field(default_factory=list)
    maxfail: int | None = None  # broken checks after which nothing more was to be run

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What is on disk by now."""
        path = folder / "manifest.json"
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(
            folder,
            [records.verdict_record(line) for line in records.finished(folder / "verify.jsonl")],
            [records.check(each) for each in manifest.get("planned", [])],
            [records.follows(each) for each in manifest.get("follows", [])],
            manifest.get("maxfail"),
        )

    @property
    def broken(self) -> list[records.VerdictRecord]:
        """The verdicts that make the run red, worst first; of equals the largest error first."""
        return sorted(
            (each for each in self.findings if each.broken),
            key=lambda each: (records.RANK[each.verdict], -(each.budget_used or 0.0)),
        )

    @property
    def missing(self) -> list[records.Check]:
        """What was planned and has no verdict."""
        found = {each.check for each in self.findings}
        return [check for check in self.planned if check not in found]

    @property
    def stopped(self) -> bool:
        """Whether checks are missing because so many were broken that the others were not wanted."""
        return bool(self.missing and self.maxfail and len(self.broken) >= self.maxfail)

    @property
    def why_missing(self) -> str:
        """What is to be said of the checks that are missing."""
        return f"not run because of --maxfail {self.maxfail}" if self.stopped else "planned and not run"

    @property
    def verified(self) -> bool:
        """Whether anything was: a step that is not offered says nothing."""
        return any(each.verdict is not records.Verdict.UNSUPPORTED for each in self.findings)

    @property
    def exit_code(self) -> records.Exit:
        """0 good, 1 a claim broken, 5 planned checks missing, or nothing but UNSUPPORTED: then nothing was verified."""
        return records.exit_code(broken=bool(self.broken), missing=bool(self.missing), something=self.verified)


def worst(findings: Iterable[records.VerdictRecord]) -> records.Verdict:
    """The verdict that stands for several."""
    return records.worst(each.verdict for each in findings)
