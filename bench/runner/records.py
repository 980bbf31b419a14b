"""A benchmark in a run folder: its plan, written before anything is measured, and bench.jsonl.

What did not run is then seen to be missing. Lines are appended whole, and read back as the records of `reports.bench_records`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from properties.run import run_folder
from reports.bench_records import BenchRecord, line, read
from reports.records import finished

Of = TypeVar("Of", bound=BenchRecord)
FILE = "bench.jsonl"


def write(folder: Path, record: BenchRecord) -> None:
    """Append one line and wait until it is on disk."""
    run_folder.append(folder / FILE, line(record))


def records(folder: Path, of: type[Of]) -> list[Of]:
    """The records of one kind that count: of each id the last."""
    last = {fields["id"]: fields for fields in finished(folder / FILE) if fields.get("what") == of.what}
    return [read(fields, of) for fields in last.values()]


def mend(folder: Path) -> None:
    """Cut off a last line that was torn by a kill, so that the next one does not continue it."""
    path = folder / FILE
    if not path.exists():
        return
    whole = path.read_bytes().rfind(b"\n") + 1
    if whole < path.stat().st_size:
        os.truncate(path, whole)


def enter(folder: Path, what: str, wanted: dict[str, Any], cells: Sequence[str], *, device: str, seed: int) -> None:
    """Write the planned cells of `what` ("bench" or "counters") into the folder's manifest, or check that they are in it.

    Raises ValueError for a folder with other settings, or a run of other code.
    """
    path = folder / "manifest.json"
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    asked = {f"{what}_planned": list(cells), what: wanted}
    if not path.exists():
        run_folder.create(folder, {"environment": run_folder.environment(device), "seed": seed, "planned": [], **asked})
        return
    manifest = _manifest(path)
    if manifest.get("environment", {}).get("code") != run_folder.code_hash():
        raise ValueError(f"--run {folder}: it holds a run of other code; name another folder")
    if what not in manifest:
        run_folder.rewrite(folder, {**manifest, **asked})
        return
    if other := [name for name in wanted if wanted[name] != manifest[what].get(name)]:
        was, now = manifest[what].get(other[0]), wanted[other[0]]
        raise ValueError(f"--run {folder}: it holds a benchmark with {other[0]} {was}, not {now}; name another folder")
    mend(folder)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--run {path.parent}: expected a run's manifest.json, got a file that is no JSON ({error})") from None
    if manifest.get("schema") != run_folder.SCHEMA:
        raise ValueError(f"--run {path.parent}: expected a run of schema {run_folder.SCHEMA}, got {manifest.get('schema')!r}")
    return manifest
