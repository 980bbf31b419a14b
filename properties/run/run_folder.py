"""A run folder on disk: what was planned, where it ran, and one JSON line for each thing that is finished.

    runs/<id>/manifest.json   schema, id, what was planned, the claims' texts, environment, seed
    runs/<id>/verify.jsonl    one line a verdict, appended and flushed as it falls (schema: `veriformer list schema`)
    runs/<id>/bench.jsonl     one line a cell, likewise

What is on disk is whole: a run that ends early leaves what it finished.
"""

import hashlib
import itertools
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from properties.claims import CLAIMS
from reports.records import SCHEMA, encoded

ROOT = Path(__file__).resolve().parents[2]
OURS = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
VERSIONS = ("veriformer", "numpy", "torch", "hypothesis", "pytest", "scipy", "pandas")


@contextmanager
def new(name: str = "{}") -> Iterator[Path]:
    """Make a folder in runs/, named by the time, with `name` around it; it is removed in the end if nothing was written there.

    Whoever makes a folder has it: of runs that begin within one second each gets a name of its own.
    """
    first = Path("runs") / name.format(time.strftime("%Y%m%d-%H%M%S"))
    names = itertools.chain([first], (first.with_name(f"{first.name}-{count}") for count in itertools.count(2)))
    folder = next(each for each in names if _made(each))
    try:
        yield folder
    finally:
        for each in (folder, folder.parent):
            with suppress(OSError):  # it is not empty
                each.rmdir()


def _made(folder: Path) -> bool:
    folder.parent.mkdir(exist_ok=True)
    try:
        folder.mkdir()
    except (FileExistsError, FileNotFoundError):  # another run has it; or a command has just removed runs/, which was empty
        return False
    return True


def create(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Make a run folder with its manifest, which is returned as it is written.

    Raises FileExistsError for a folder that already holds a run: nothing is overwritten.
    """
    if (folder / "manifest.json").exists():
        raise FileExistsError(f"--run {folder}: this folder already holds a run; name another, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"schema": SCHEMA, "id": folder.name, "claims": [asdict(claim) for claim in CLAIMS], **manifest}
    rewrite(folder, whole)
    return whole


class Unwritable(OSError):
    """A run's file cannot be written, for want of space or permission."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}; what was finished before is on disk"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(error.errno, error.strerror, str(path)) from error


def rewrite(folder: Path, manifest: dict[str, Any]) -> None:
    """Put `manifest` in place of the one that is there, whole or not at all. Raises Unwritable."""
    unfinished = folder / "manifest.json.unfinished"
    with _writing(folder / "manifest.json"):
        try:
            unfinished.write_text(encoded(manifest, indent=1), encoding="utf-8")
            unfinished.replace(folder / "manifest.json")
        finally:
            unfinished.unlink(missing_ok=True)


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line and wait until it is on disk. Raises Unwritable."""
    text = encoded({"schema": SCHEMA, **line}) + "\n"
    with _writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions: what a number may depend on."""
    import torch

    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "versions": {name: _version(name) for name in VERSIONS},
        "code": code_hash(),
        "device": device,
    }
    if device != "cpu" and torch.cuda.is_available():
        found["device_name"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def code_hash() -> str:
    """One number for the text of all our packages: two runs of different code are told apart by it."""
    digest = hashlib.blake2b(digest_size=8)
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
