"""A run shared by several machines: one plan, a part of it for each, and their folders merged.

A claim is never split, nor is the comparison of a workload's peers. Examples are drawn from a claim's name and the seed, so that
the parts find what the whole would have found, however many there are. Each part's folder carries the whole plan: what no part
did is then seen to be missing.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from properties.run import run_folder
from properties.run.subprocesses import run
from veriformer import engine
from veriformer.settings import Refused

FILE = "plan.json"
OF_A_MACHINE = ("run", "workers")  # what a request says that each machine decides for itself


@dataclass(frozen=True)
class Plan:
    """All that is to be done, by whomever."""

    schema: int
    code: str  # the hash of the code that planned: only the same code may run it
    verify: dict[str, Any]  # an engine.Request without its folder
    planned: list[dict[str, str]]
    bench: dict[str, Any] | None  # bench.runner.run.Settings, or None: nothing is timed
    bench_planned: list[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file; Refused where it is no plan, or one of other code."""
        if not path.is_file():
            raise Refused(f"{path}: expected a plan written by `veriformer plan`, found no file")
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            plan = cls(**{field.name: told[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{path}: expected a plan written by `veriformer plan`, got {type(error).__name__}: {error}") from None
        if plan.schema != run_folder.SCHEMA:
            raise Refused(f"{path}: expected schema {run_folder.SCHEMA}, got {plan.schema}")
        if plan.code != run_folder.code_hash():
            raise Refused(f"{path}: it was planned by other code ({plan.code}, here {run_folder.code_hash()}); plan again")
        return plan

    @property
    def id(self) -> str:
        """A name for this very plan."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=8).hexdigest()

    def write(self, path: Path) -> None:
        """To a new file. Refused for one that is there, unless it is this plan."""
        text = json.dumps({**asdict(self), "id": self.id}, ensure_ascii=False, indent=1)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise Refused(f"{path}: another file is there; nothing is overwritten")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def part(self, number: int, of: int) -> "Part":
        """The part of machine `number` of `of`."""
        claims = Counter(check["claim"] for check in self.planned)
        workloads = Counter(cell.split("/")[0] for cell in self.bench_planned)
        return Part(self, number, of, share(claims, number, of), share(workloads, number, of))


@dataclass(frozen=True)
class Part:
    """What one machine does of a plan."""

    plan: Plan
    number: int
    of: int
    claims: tuple[str, ...]
    workloads: tuple[str, ...]

    def request(self, folder: Path) -> engine.Request:
        """The verification of this part."""
        told = {name: tuple(value) if isinstance(value, list) else value for name, value in self.plan.verify.items()}
        return engine.Request(**{**told, "claims": self.claims, "run": folder, "workers": "auto"})

    def bench_settings(self) -> dict[str, Any]:
        """What `bench.runner.run.run` is asked, but for the workloads."""
        settings = self.plan.bench or {}
        told = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        return {name: value for name, value in told.items() if name != "workloads"}


def share(sizes: dict[str, int], number: int, of: int) -> tuple[str, ...]:
    """Which names are for machine `number` of `of`: the largest first, each to whoever has least so far."""
    loads = [0] * of
    mine = []
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        least = loads.index(min(loads))
        loads[least] += size
        mine += [name] if least == number - 1 else []
    return tuple(mine)


def made(request: engine.Request, bench: dict[str, Any] | None = None, bench_planned: list[str] | None = None) -> Plan:
    """The plan of a request: its checks are collected, none is run."""
    verify = {name: value for name, value in vars(request).items() if name not in OF_A_MACHINE}
    as_json = json.loads(json.dumps([verify, bench]))  # lists for tuples, as they will be read
    return Plan(run_folder.SCHEMA, run_folder.code_hash(), as_json[0], collected(request), as_json[1], bench_planned or [])


def collected(request: engine.Request) -> list[dict[str, str]]:
    """The checks that a request would run."""
    with tempfile.TemporaryDirectory() as folder:
        checks = Path(folder) / "checks.json"
        options = ["--collect-only", "-pveriformer.collecting", f"--checks-into={checks}"]
        command = [sys.executable, "-P", "-m", "pytest", *request.arguments(), *options]
        done = run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ended = engine.Ended(done.returncode, done.stdout + done.stderr)
        if ended.refusal:
            raise Refused(ended.refusal)
        if not checks.exists():
            raise Refused(
                f"no plan could be made: {ended.output.strip().splitlines()[-1] if ended.output.strip() else 'no output'}"
            )
        return json.loads(checks.read_text(encoding="utf-8"))
