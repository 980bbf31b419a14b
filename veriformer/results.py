"""What a run found: the lines of its `verify.jsonl` against what its manifest planned."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from properties import runs
from properties.verdicts import BROKEN, Verdict
from veriformer.findings import Finding

GOOD, CLAIM_BROKEN, USAGE, MISSING, INTERRUPTED = 0, 1, 2, 5, 130  # exit codes
KEY = ("claim", "property", "implementation", "dtype", "device")  # what a line is about, and what is planned
WORST_FIRST = (
    Verdict.CRASH,
    Verdict.TIMEOUT,
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.CONVENTION_MISMATCH,
    Verdict.UNEXPECTED_PASS,
    Verdict.VACUOUS,
    Verdict.SUSPECT,
    Verdict.KNOWN_FAILURE,
    Verdict.PASS,
    Verdict.UNSUPPORTED,
)


@dataclass(frozen=True)
class Results:
    """The findings of a run, and what it planned and did not do."""

    folder: Path
    lines: list[dict[str, Any]]
    planned: list[dict[str, str]]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What is on disk by now."""
        path = folder / "manifest.json"
        planned = json.loads(path.read_text(encoding="utf-8"))["planned"] if path.exists() else []
        return cls(folder, runs.finished(folder / "verify.jsonl"), planned)

    @cached_property
    def findings(self) -> list[Finding]:
        """The lines, read."""
        return [Finding.of(line, broken=line["verdict"] in BROKEN) for line in self.lines]

    @property
    def broken(self) -> list[Finding]:
        """The findings that make the run red, worst first."""
        return sorted(
            (finding for finding in self.findings if finding.broken), key=lambda each: WORST_FIRST.index(Verdict(each.verdict))
        )

    @property
    def missing(self) -> list[dict[str, str]]:
        """What was planned and has no verdict."""
        found = {tuple(line[name] for name in KEY) for line in self.lines}
        return [check for check in self.planned if tuple(check[name] for name in KEY) not in found]

    @property
    def exit_code(self) -> int:
        """0 good, 1 a claim broken, 5 planned checks missing, or nothing but UNSUPPORTED: then nothing was verified."""
        if self.broken:
            return CLAIM_BROKEN
        verified = any(finding.verdict != Verdict.UNSUPPORTED for finding in self.findings)
        return MISSING if self.missing or not verified else GOOD


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict that stands for several."""
    return min((Verdict(finding.verdict) for finding in findings), key=WORST_FIRST.index)
