"""What a run found: the lines of its `verify.jsonl` against what its manifest planned."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from properties import runs
from properties.verdicts import BROKEN, Verdict

GOOD, CLAIM_BROKEN, USAGE, MISSING, INTERRUPTED = 0, 1, 2, 5, 130  # exit codes
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

Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Finding:
    """One line of `verify.jsonl`: what one property found on one implementation, dtype and device."""

    claim: str
    name: str  # of the property
    implementation: str
    dtype: str
    device: str
    verdict: Verdict
    message: str = ""
    counterexample: str = ""
    share: float | None = None
    place: str | None = None
    expected: str | None = None
    got: str | None = None
    generated: int = 0
    filtered: int = 0
    compared: int = 0
    unjudged: int = 0
    suspects: list[str] = field(default_factory=list)
    seconds: float = 0.0
    seed: int = 0
    isolated: bool = True

    @classmethod
    def of(cls, line: dict[str, Any]) -> Self:
        """From a line's JSON; keys we do not know are left out."""
        known = {each.name for each in fields(cls)}
        told: dict[str, Any] = {key: value for key, value in line.items() if key in known}
        return cls(**told | {"name": line["property"], "verdict": Verdict(line["verdict"])})

    @property
    def broken(self) -> bool:
        """Whether this makes the run red."""
        return self.verdict in BROKEN

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.claim, self.name, self.implementation, self.dtype, self.device


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
        return [Finding.of(line) for line in self.lines]

    @property
    def broken(self) -> list[Finding]:
        """The findings that make the run red, worst first."""
        return sorted((finding for finding in self.findings if finding.broken), key=lambda each: WORST_FIRST.index(each.verdict))

    @property
    def missing(self) -> list[dict[str, str]]:
        """What was planned and has no verdict."""
        found = {finding.key for finding in self.findings}
        names = ("claim", "property", "implementation", "dtype", "device")
        return [check for check in self.planned if tuple(check[name] for name in names) not in found]

    @property
    def exit_code(self) -> int:
        """0 good, 1 a claim broken, 5 planned checks missing (nothing planned is missing, too)."""
        if self.broken:
            return CLAIM_BROKEN
        return MISSING if self.missing or not self.findings else GOOD


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict that stands for several."""
    return min((finding.verdict for finding in findings), key=WORST_FIRST.index)
