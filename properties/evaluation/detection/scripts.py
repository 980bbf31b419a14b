"""What a reader gets of every re-created bug: how large its counterexample is, and that its script says 1, and 0 once it is mended.

`python -m properties.evaluation.detection.scripts [--into DIR] [--jobs N]`. Each bug is caught as the committed score says, at
the first example that shows it, and made small by our own minimiser.
Every script runs in a fork of this process in which none of our packages can be
imported, on the fault and on its base. What is finished stands in DIR/scripts.jsonl: interrupted, the same command goes on
there.
"""

import argparse
import json
import os
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from properties.counterexample.find import smallest
from properties.counterexample.write import write
from properties.evaluation.detection.catalogue import entry
from properties.evaluation.detection.search import judged
from properties.implementations.impl import Impl
from properties.run import run_folder
from properties.run.parallel import in_parallel, with_jobs
from properties.run.subprocesses import die_with, guarded
from properties.verdict.listing import claim_of, property_named
from reports import records

SCORE = Path(__file__).parents[2] / "data" / "score.json"
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
CAME_TO_GRIEF = 70  # exit code of a script that ended with an exception
SMALL = 16  # numbers, half of all counterexamples at most


class Script(NamedTuple):
    """One bug's counterexample; no numbers where no single answer shows the fault."""

    id: str
    claim: str
    numbers: int | None
    calls: int = 0
    on_the_fault: int = -1  # exit code
    once_mended: int = -1

    @property
    def is_right(self) -> bool:
        """Whether the script tells the fault from its base."""
        return (self.on_the_fault, self.once_mended) == (1, 0)


def catches() -> list[tuple[str, str, int]]:
    """Every bug that was caught: its id, and the property and seed that took fewest examples."""
    entries = json.loads(SCORE.read_text(encoding="utf-8"))["entries"]
    found = []
    for each in entries:
        if caught := [search for search in each["searches"] if search["caught"]]:
            first = min(caught, key=lambda search: search["examples"])
            found.append((each["id"], first["property"], first["seed"]))
    return found


def scripted(identifier: str, law: str, seed: int, folder: Path) -> Script:
    """Catch one bug, write its script, and run it."""
    fault, test = entry(identifier), property_named(law)
    claim, implementation = claim_of(test), fault.implementation()
    judgement = judged(implementation, fault.dtype, test, seed)
    found = smallest(Impl(implementation, fault.dtype), claim, law, judgement.calls)
    if found is None:
        return Script(identifier, claim, None)
    script = write(folder, found, source=fault.source())
    base = folder / f"{identifier}.right.py"
    base.write_text(fault.source(wrong=False), encoding="utf-8")
    codes = (_exit_code(script), _exit_code(script, "--candidate", f"{base}:{found.calls[-1].step}"))
    return Script(identifier, claim, found.numbers, len(found.calls), *codes)


def _exit_code(script: Path, *options: str) -> int:
    """What it exits with, without the seconds that a new Python would take to import torch."""
    parent, pid = os.getpid(), os.fork()
    if not pid:
        die_with(parent)
        os._exit(_run([str(script), *options]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(command: list[str]) -> int:
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    ours = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    sys.modules.update(dict.fromkeys(ours + list(PACKAGES)))  # type: ignore[arg-type] (None: it cannot be imported)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else CAME_TO_GRIEF
    except BaseException:
        return CAME_TO_GRIEF
    return 0


def report(scripts: Iterable[Script]) -> str:
    """One line a bug, the largest first, and what all of them say."""
    scripts = sorted(scripts, key=lambda each: -(each.numbers or 0))
    written = [each for each in scripts if each.numbers is not None]
    sizes = [each.numbers for each in written if each.numbers is not None]
    lines = [
        f"{each.numbers:5} numbers in {each.calls} call{'s' * (each.calls > 1)}, exit {each.on_the_fault} on the fault, "
        f"{each.once_mended} once mended: {each.id} ({each.claim})"
        for each in written
    ]
    lines += [f"    no script, no single answer shows it: {each.id} ({each.claim})" for each in scripts if each.numbers is None]
    right = sum(each.is_right for each in written)
    lines.append(f"{len(scripts)} bugs, {len(written)} scripts, {right} of them exit 1 on the fault and 0 once it is mended")
    lines.append(f"numbers: median {np.median(sizes):.0f}, nine in ten at most {np.quantile(sizes, 0.9):.0f}, largest {max(sizes)}")
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 where a script is wrong, or more than half of them are large."""
    parser = argparse.ArgumentParser(
        prog="python -m properties.evaluation.detection.scripts", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--into", type=Path, default=Path("runs/scripts"), metavar="DIR")
    given = with_jobs(parser)
    given.into.mkdir(parents=True, exist_ok=True)
    done, code = given.into / "scripts.jsonl", run_folder.code_hash()
    scripts = [Script(**line["script"]) for line in records.finished(done) if line["code"] == code]
    missing = [each for each in catches() if each[0] not in {script.id for script in scripts}]
    work = in_parallel(scripted, ((*each, (given.into / each[0]).resolve()) for each in missing), given.jobs)
    for script in track(work, "writing and running scripts", total=len(missing)):
        run_folder.append(done, {"code": code, "script": script._asdict()})
        scripts.append(script)
    print(report(scripts))
    written = [each for each in scripts if each.numbers is not None]
    small = 2 * sum((each.numbers or 0) <= SMALL for each in written) >= len(written)
    return int(not (small and all(each.is_right for each in written)))


if __name__ == "__main__":
    sys.exit(guarded(main))
