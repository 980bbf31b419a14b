"""One line of `verify.jsonl`, as an object. Imports no room: `veriformer.verify` hands these out inside a user's own test run."""

from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True)
class Finding:
    """What one property found on one implementation, dtype and device."""

    claim: str
    name: str  # of the property
    implementation: str
    dtype: str
    device: str
    verdict: str  # PASS, FAIL, SUSPECT, UNSUPPORTED, …: see properties.verdicts
    broken: bool  # whether this makes the run red
    message: str = ""
    counterexample: str = ""  # the smallest input that shows it
    share: float | None = None  # the worst error, as a share of the budget
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
    isolated: bool = True  # whether the candidate ran in a process of its own

    @classmethod
    def of(cls, line: dict[str, Any], *, broken: bool) -> Self:
        """From a line's JSON; what a later version added to it is left out."""
        known = {each.name for each in fields(cls)}
        told: dict[str, Any] = {key: value for key, value in line.items() if key in known}
        return cls(**told | {"name": line["property"], "broken": broken})

    def __str__(self) -> str:
        place = f" at {self.place}" if self.place else ""
        sight = f"; expected {self.expected}, got {self.got}{place}" if self.expected is not None else ""
        isolated = "" if self.isolated else ", not isolated"
        text = f"{self.claim} {self.verdict} ({self.name}, {self.implementation}, {self.dtype}, {self.device}{isolated})"
        example = f"\n    {self.counterexample}" if self.counterexample and self.broken else ""
        return f"{text}: {self.message}{sight}{example}" if self.message else f"{text}{example}"
