"""What a run folder holds, typed: one record for whoever writes a line and whoever reads it, and what verdicts amount to.

Imports the standard library and msgspec only, so that every other package may import it.

JSON has no infinity and no NaN, and UTF-8 no lone surrogates: such a float is written as the string "Infinity", "-Infinity" or
"NaN" where the schema says so, such a character as its escape, and any JSON reader can read the line.
"""

import json
import math
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

Record = TypeVar("Record", bound=Struct)

SCHEMA = 2  # of manifest.json and the lines; a reader refuses any other
WRITTEN_BY = {1: "veriformer 0.1", 2: "veriformer 0.2"}  # which version writes and reads a schema

NOT_IN_JSON = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
if TYPE_CHECKING:
    Extended = float
else:
    Extended = float | Literal["Infinity", "-Infinity", "NaN"]
"""A number that may be infinite or NaN: always a float in a record, one of three strings in JSON."""


class Verdict(StrEnum):
    """The outcome of one property on one implementation, dtype and device; worst first: the first of several stands for all."""

    CRASH = "CRASH"  # the implementation's process died
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"  # it raised, changed its input, or returned the wrong type, shape or dtype; or the suite itself went wrong
    FAIL = "FAIL"
    CONVENTION_MISMATCH = "CONVENTION_MISMATCH"
    UNEXPECTED_PASS = "UNEXPECTED_PASS"  # noqa: S105 (a verdict, not a password)
    VACUOUS = "VACUOUS"  # nothing was compared, or more than 1 % of a case could not be judged
    SUSPECT = "SUSPECT"  # between the look-again and the fail mark after escalation: shown, exit 0
    KNOWN_FAILURE = "KNOWN_FAILURE"
    PASS = "PASS"  # noqa: S105 (a verdict, not a password)
    UNSUPPORTED = "UNSUPPORTED"  # the step is not offered, or more than half was refused: never counted as passed


NOT_OFFERED = "does not offer "  # in the message of an UNSUPPORTED check that was not asked; the others were declined

BROKEN = frozenset(list(Verdict)[: list(Verdict).index(Verdict.SUSPECT)])
"""The verdicts that make a run red (exit code 1)."""

RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that stands for several. Raises ValueError for none."""
    return min(verdicts, key=RANK.__getitem__)


class Exit(IntEnum):
    """What a command's exit code says."""

    GOOD = 0
    BROKEN = 1  # a claim is broken, or a timed result is wrong
    USAGE = 2
    SLOWER = 3  # a slowdown that a second run confirms
    MISSING = 5  # something planned did not run, or nothing was verified
    INTERRUPTED = 130  # by SIGINT
    TERMINATED = 143  # by SIGTERM


def exit_code(*, broken: bool, missing: bool, something: bool = True) -> Exit:
    """What a run comes to: a broken claim first, then what was planned and is missing, or that there is not `something` at all."""
    return Exit.BROKEN if broken else Exit.MISSING if missing or not something else Exit.GOOD


def of_another_schema(manifest: dict[str, Any]) -> str:
    """Which version reads a run with this manifest, where ours does not; "" where it does. The first schema need not be named."""
    number = manifest.get("schema", 1)
    if number == SCHEMA:
        return ""
    writer = WRITTEN_BY.get(number, "another version") if isinstance(number, int) else "another version"
    return f"this run has schema {number!r}, written by {writer}; {WRITTEN_BY[SCHEMA]} reads schema {SCHEMA}"


Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0)]
Dtype = Literal["float64", "float32", "bfloat16", "float16"]


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """What a verdict is about, and what is planned: a property on an implementation, at a dtype, on a device."""

    claim: Annotated[str, Meta(pattern="^[A-Z]+[0-9]+$", description="a claim's id; the manifest has its statement and formula")]
    name: Annotated[str, Meta(min_length=1, description="the test function, with its own parameters")] = msgspec.field(
        name="property"
    )
    implementation: Text
    dtype: Dtype
    device: Text

    def __str__(self) -> str:
        return f"{self.claim} · {self.name} · {self.implementation} · {self.dtype} · {self.device}"


class VerdictRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of verify.jsonl: what one property found on one implementation, dtype and device."""

    schema: Literal[2] = SCHEMA
    kind: Literal["verdict"] = "verdict"
    claim: Annotated[str, Meta(pattern="^[A-Z]+[0-9]+$", description="a claim's id; the manifest has its statement and formula")]
    name: Annotated[str, Meta(min_length=1, description="the test function, with its own parameters")] = msgspec.field(
        name="property"
    )
    implementation: Text
    dtype: Dtype
    device: Text
    seed: Count
    isolated: Annotated[bool, Meta(description="whether the implementation ran in a process of its own")]
    verdict: Verdict
    message: str = ""
    counterexample: Annotated[str, Meta(description="the smallest input found that shows it")] = ""
    failure: Annotated[
        str, Meta(description="the failure it is one of, in whatever dtype: the same step, wrong in the same way")
    ] = ""
    refers: Annotated[bool, Meta(description="whether the counterexample of this failure stands with another of its verdicts")] = (
        False
    )
    budget_used: Annotated[Extended | None, Meta(description="the largest error, as a share of the budget; above 1 it is over")] = (
        None
    )
    index: Annotated[str | None, Meta(description="the index of the worst element")] = None
    expected: str | None = None
    got: str | None = None
    generated: Annotated[int, Meta(ge=0, description="examples that ran")] = 0
    filtered: Annotated[int, Meta(ge=0, description="examples that were drawn and rejected")] = 0
    refused: Annotated[int, Meta(ge=0, description="examples the implementation does not take (its NotImplementedError)")] = 0
    compared: Annotated[int, Meta(ge=0, description="elements of results that were held against something")] = 0
    undecidable: Annotated[int, Meta(ge=0, description="elements no correct computation can be held to")] = 0
    suspects: list[str] = msgspec.field(default_factory=list)
    seconds: Extended = 0.0
    suite_error: Annotated[
        str, Meta(description="what went wrong in veriformer itself, to be reported to its authors; empty for all other verdicts")
    ] = ""

    def __post_init__(self) -> None:
        for name in ("budget_used", "seconds"):
            if isinstance(getattr(self, name), str):
                msgspec.structs.force_setattr(self, name, float(getattr(self, name)))

    @property
    def broken(self) -> bool:
        """Whether this makes the run red."""
        return self.verdict in BROKEN

    @property
    def check(self) -> Check:
        """What it is about."""
        return Check(self.claim, self.name, self.implementation, self.dtype, self.device)

    def __str__(self) -> str:
        index = f" at {self.index}" if self.index else ""
        seen = f"; expected {self.expected}, got {self.got}{index}" if self.expected is not None else ""
        isolated = "" if self.isolated else ", not isolated"
        text = f"{self.claim} {self.verdict} ({self.name}, {self.implementation}, {self.dtype}, {self.device}{isolated})"
        example = f"\n    {self.counterexample}" if self.counterexample and self.broken else ""
        example = f"\n    the same failure as {self.failure}" if self.refers else example
        return f"{text}: {self.message}{seen}{example}" if self.message else f"{text}{example}"


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """One convention as an implementation follows it, in words; `torch` is what `torch.sdpa` is seen to do, "" for nothing."""

    name: Text
    what: str
    choice: Text
    meaning: str
    how: Literal["declared", "found", "signature"]  # found by a probe; the signature of the steps says what a mask means
    torch: str = ""
    differs: bool = False  # whether PyTorch does otherwise


class Follows(Struct, frozen=True, forbid_unknown_fields=True):
    """Which conventions an implementation follows at a dtype on a device, and what it declares of its arithmetic."""

    implementation: Text
    dtype: Dtype
    device: Text
    conventions: list[Choice]
    contract: str = ""
    domain: str = ""  # which arguments it takes, as it can be declared; "" for all
    domain_declared: bool = False  # or found by probes
    warning: str = ""  # what it answers wrongly outside of a declared domain
    arithmetic: str = ""  # as probes show it: in what sums are, and what is rounded in between


class RecordError(ValueError):
    """A line that is no record of ours; its message says in one line what was expected and where."""


def verdict_record(fields: dict[str, Any]) -> VerdictRecord:
    """The record that a line's JSON holds. Raises RecordError."""
    return _converted(fields, VerdictRecord)


def follows(fields: dict[str, Any]) -> Follows:
    """What a manifest says of an implementation's conventions. Raises RecordError."""
    return _converted(fields, Follows)


def check(fields: dict[str, Any]) -> Check:
    """A planned check, from a manifest's JSON. Raises RecordError."""
    return _converted(fields, Check)


def _converted(fields: Any, to: type[Record]) -> Record:
    try:
        return msgspec.convert(fields, to)
    except msgspec.ValidationError as error:
        raise RecordError(str(error)) from None


def finished(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, without a last one that was cut off; [] for a file that is not there."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def plain(value: Any) -> Any:
    """`value` as JSON knows it: records as objects, infinities and NaN by name, anything else that JSON lacks as its text."""
    match value:
        case Struct():
            return plain(msgspec.to_builtins(value))
        case dict():
            return {_utf8(str(name)): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else NOT_IN_JSON[str(float(value))]
        case _:
            return _utf8(str(value))


def encoded(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON that every reader reads."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def schema() -> dict[str, Any]:
    """The JSON Schema of a line of verify.jsonl."""
    passed = {"properties": {"verdict": {"enum": [Verdict.PASS, Verdict.SUSPECT]}}}
    proven = {"if": passed, "then": {"properties": {"generated": {"minimum": 1}}}}
    found = msgspec.json.schema(VerdictRecord)
    found["$defs"]["VerdictRecord"]["allOf"] = [proven]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
