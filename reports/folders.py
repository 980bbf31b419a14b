"""Read run folders, strictly: what is torn, foreign, empty or contradictory is said in one line, never guessed around.

manifest.json       what was planned, the claims' texts, which conventions were followed, the machine and the versions
verify.jsonl        one line a verdict            bench.jsonl     one line a timed cell
score.json          the detection score           calibration.json   false positives and faults seen, per rule of comparison
"""

import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from reports import bench_records, records
from reports.records import RANK, SCHEMA, Check, Follows, RecordError, VerdictRecord

EXTRAS: dict[str, dict[str, type]] = {  # other files of a run folder, and what a report needs of each
    "score": {"seeds": list, "entries": list, "classes": list, "by_seed": list, "usual": dict, "correct": dict, "claims": dict},
    "calibration": {},
    "plan": {"planned": list, "bench_planned": list},
}
NUMBERED = ("score", "plan")  # those that name their schema
MACHINE = ("processor", "cores", "threads", "float32_matmul_precision", "device", "device_name", "cuda")
KEPT_VISIBLE = "\n\t"  # the two control characters that may stay as they are

Line = dict[str, Any]
Record = TypeVar("Record")


class ReportError(Exception):
    """A run folder that cannot be reported on; its message is one line for the user."""


@dataclass(frozen=True)
class Run:
    """What one run folder holds."""

    path: Path
    manifest: Line
    planned: list[Check] = field(default_factory=list)
    follows: list[Follows] = field(default_factory=list)
    verdicts: list[VerdictRecord] = field(default_factory=list)
    bench: list[Line] = field(default_factory=list)
    extras: dict[str, Line] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a reader of the report must know about the folder itself

    @property
    def id(self) -> str:
        """The run's name."""
        return str(self.manifest.get("id", self.path.name))

    @property
    def environments(self) -> list[Line]:
        """Every environment the run was made in: one, or after a merge one for each part."""
        return self.manifest.get("environments") or [{"run": self.id, **self.manifest.get("environment", {})}]

    @property
    def code(self) -> str:
        """The hash of the code that ran."""
        return str(self.environments[0].get("code", "unknown"))


def read(folder: Path) -> Run:
    """The run in `folder`; raises ReportError with one line that says what is wrong with it."""
    if not folder.is_dir():
        raise ReportError(f"{folder}: expected a run folder, found {'a file' if folder.exists() else 'nothing there'}")
    if not (folder / "manifest.json").exists():
        raise ReportError(f"{folder}: expected a run folder with a manifest.json, found none in it")
    manifest = _object(folder / "manifest.json")
    if other := records.of_another_schema(manifest):
        raise ReportError(f"{folder}: {other}")
    for part in ("claims", "planned"):
        if not isinstance(manifest.get(part), list):
            raise ReportError(f"{folder / 'manifest.json'}: expected a list {part!r}, found {type(manifest.get(part)).__name__}")
    notes: list[str] = []
    planned = _records(manifest["planned"], records.check, f"{folder / 'manifest.json'}, planned check")
    follows = _records(manifest.get("follows") or [], records.follows, f"{folder / 'manifest.json'}, conventions")
    verdicts = _records(_lines(folder / "verify.jsonl", notes), records.verdict_record, f"{folder / 'verify.jsonl'}, line")
    timed = _records(_lines(folder / "bench.jsonl", notes), bench_records.record, f"{folder / 'bench.jsonl'}, line")
    bench = list({(each.what, each.id): bench_records.line(each) for each in timed}.values())  # of each the last
    extras = {name: _extra(folder / f"{name}.json", needs) for name, needs in EXTRAS.items() if (folder / f"{name}.json").exists()}
    return Run(folder, manifest, planned, follows, worst_of_each(verdicts, notes), bench, extras, notes)


def machine(run: Run) -> dict[str, str]:
    """What makes a machine class: two runs are timed alike only where all of it is equal."""
    return {name: str(run.environments[0].get(name, "")) for name in MACHINE}


def difference(one: Run, other: Run) -> str:
    """How the machine classes of two runs differ, in words."""
    here, there = machine(one), machine(other)
    return "; ".join(f"{name}: {here[name] or 'none'} and {there[name] or 'none'}" for name in MACHINE if here[name] != there[name])


def worst_of_each(verdicts: list[VerdictRecord], notes: list[str]) -> list[VerdictRecord]:
    """One verdict a check: where a resumed run judged one twice and differently, the worse counts and `notes` says so."""
    kept: dict[Check, VerdictRecord] = {}
    for each in verdicts:
        before = kept.setdefault(each.check, each)
        if before.verdict != each.verdict:
            kept[each.check] = min(before, each, key=lambda one: RANK[one.verdict])
            notes.append(f"{each.check} was judged twice: {before.verdict} and {each.verdict}; the worse counts")
    return list(kept.values())


def _records(lines: list[Any], read_one: Callable[[Any], Record], where: str) -> list[Record]:
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read_one(line))
        except RecordError as error:
            raise ReportError(f"{where} {number}: {error}") from None
    return found


def visible(value: Any) -> Any:
    """`value` with every control and formatting character spelled out, so that no name can act on a page or a terminal."""
    if isinstance(value, str):
        if value.isprintable():  # nearly all are, and nothing of them is to be spelled out
            return value
        return "".join(_spelled(character) for character in value)
    if isinstance(value, list):
        return [visible(item) for item in value]
    if isinstance(value, dict):
        return {visible(key): visible(item) for key, item in value.items()}
    return value


def _spelled(character: str) -> str:
    if character in KEPT_VISIBLE or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _object(path: Path) -> Line:
    return _parsed(path.read_bytes(), str(path))


def _extra(path: Path, needs: dict[str, type]) -> Line:
    found = _object(path)
    if path.stem in NUMBERED:
        _must_be_of(SCHEMA, found, str(path))
    for name, kind in needs.items():
        if not isinstance(found.get(name), kind):
            raise ReportError(f"{path}: expected a {kind.__name__} {name!r}, found {type(found.get(name)).__name__}")
    return found


def _lines(path: Path, notes: list[str]) -> list[Line]:
    if not path.exists():
        return []
    *whole, rest = path.read_bytes().split(b"\n")
    if rest:
        notes.append(f"{path.name}: the last line is cut off ({len(rest)} bytes); its cell counts as not run")
    numbered = [(line, f"{path}, line {number}") for number, line in enumerate(whole, 1) if line.strip()]
    found = [(_parsed(line, where), where) for line, where in numbered]
    for line, where in found:
        _must_be_of(SCHEMA, line, where)
    return [line for line, _ in found]


def _must_be_of(schema: int, value: Line, where: str) -> None:
    if value.get("schema") != schema:
        raise ReportError(
            f"{where}: expected schema {schema}, got {value.get('schema', 'none')!r}; it was written by another version"
        )


def _parsed(text: bytes, where: str) -> Line:
    """One JSON object."""
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{where}: expected JSON, got {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise ReportError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return visible(value)


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word}, which is not a JSON number")


def write_whole(path: Path, text: str) -> Path:
    """Put `text` in place of what is there, if anything; returns `path`. Raises OSError, which names it.

    The file is there whole or not at all: nobody reads half of one, and a full disk leaves nothing behind.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
