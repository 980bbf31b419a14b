"""Which of the faults that nobody chose (`properties.evaluation.mutants.changes`) the suite finds.

`python -m properties.evaluation.mutants.run [--files …] [--into DIR] [--jobs N]`. A catalogue is a choice,
and a suite can be tuned to it; these are whatever a file allows.
What is finished stands in DIR/mutants.jsonl: interrupted, the same command continues.

A mutant that gets through is equivalent (it computes the same), or shows a property to be weak: each is printed, to be looked at.
"""

import argparse
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.progress import track

from properties.evaluation.detection.search import first_breach
from properties.evaluation.mutants.changes import PLACES, Mutant, limited, mutants
from properties.run import run_folder
from properties.run.parallel import in_parallel, with_jobs
from properties.run.subprocesses import guarded
from properties.verdict import profiles
from reports import records

EXAMPLES = profiles.EXAMPLES["ci"]
KEY = ("file", "function", "place", "change")
MOST_SECONDS = 120.0  # for one mutant; what takes longer never ends
MOST_MEMORY = 12 * 2**30  # bytes of addresses; a buffer may grow for ever


class TooLong(BaseException):
    """No `Exception`: one that an implementation raises is its own error, and it would be called again."""


def searched(mutant: Mutant) -> dict[str, Any]:
    """The line of one mutant: what broke first, if anything did."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    began = time.perf_counter()
    line: dict[str, Any] = {name: getattr(mutant, name) for name in KEY}
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS, 1.0)  # and again, wherever it is called once more
    try:
        breach = first_breach(mutant, 0, EXAMPLES)  # type: ignore[arg-type]  (as much of a fault as the search asks for)
    except TooLong:
        return {**line, "found": True, "law": "", "verdict": "never ends"}
    except RuntimeError as error:  # a fault of the suite
        return {**line, "found": False, "law": "", "verdict": str(error)}
    except (SyntaxError, NameError, TypeError, AttributeError) as error:  # it is no implementation at all
        return {**line, "found": True, "law": "", "verdict": type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, before)
    said = {} if breach is None else {"law": breach.property, "claim": breach.claim, "verdict": breach.verdict}
    return {**line, "found": breach is not None, **said, "seconds": round(time.perf_counter() - began, 2)}


def _too_long(*_: object) -> None:
    raise TooLong


def report(lines: list[dict[str, Any]]) -> str:
    """How many of each file were found, and every one that was not."""
    said = []
    for file in PLACES:
        own = [line for line in lines if line["file"] == file]
        if own:
            wrong = [line for line in own if line.get("verdict") not in ("ERROR", "never ends") and line.get("claim")]
            missed = [line for line in own if not line["found"]]
            said.append(f"{file}: {len(own) - len(missed)} of {len(own)} found, {len(wrong)} of them by a wrong answer")
            said += [f"  {line['function']}: {line['change']} {line.get('verdict', '')}".rstrip() for line in missed]
    missed = sum(not line["found"] for line in lines)
    said.append(f"{len(lines)} mutants, {len(lines) - missed} found ({(len(lines) - missed) / len(lines):.1%}), {missed} not")
    laws = Counter(line["law"] for line in lines if line.get("law"))
    said.append(f"{len(laws)} properties were the first to find one")
    return "\n".join(said)


def main() -> int:
    """Print what was found; exit code 0 whatever that is, 2 for a typing mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m properties.evaluation.mutants.run", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--files", nargs="*", choices=tuple(PLACES), default=list(PLACES), metavar="FILE")
    parser.add_argument("--into", type=Path, default=Path("runs/mutants"), metavar="DIR")
    given = with_jobs(parser)
    given.into.mkdir(parents=True, exist_ok=True)
    done, code = given.into / "mutants.jsonl", run_folder.code_hash()

    finished = {tuple(line[name] for name in KEY): line for line in records.finished(done) if line["code"] == code}
    wanted = [mutant for file in given.files for mutant in (*mutants(file), *limited(file))]
    missing = [each for each in wanted if tuple(getattr(each, name) for name in KEY) not in finished]
    work = in_parallel(searched, ((each,) for each in missing), given.jobs)
    for line in track(work, "looking for mutants", total=len(missing)):
        run_folder.append(done, {"code": code, **line})
        finished[tuple(line[name] for name in KEY)] = line
    print(report([line for line in finished.values() if line["file"] in given.files]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
