"""bench.jsonl on disk: lines are appended whole, and read back as the records of `reports.bench_records`."""

import os
from pathlib import Path
from typing import TypeVar

from properties.run.run_folder import append
from reports.bench_records import BenchRecord, line, read
from reports.records import finished

Of = TypeVar("Of", bound=BenchRecord)
FILE = "bench.jsonl"


def write(folder: Path, record: BenchRecord) -> None:
    """Append one line and wait until it is on disk."""
    append(folder / FILE, line(record))


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
