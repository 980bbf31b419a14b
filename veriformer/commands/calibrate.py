"""`veriformer calibrate`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from reports.records import encoded
from veriformer.settings import Refused

LOW = ("float32", "bfloat16", "float16")
QUICK = (10_000, 300, 1_000, 1_000, 0)  # checks of steps, of modules, of options and of gradients, simulated trials


def _number(option: str, default: int, text: str, *name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(option, *name, type=click.IntRange(0), default=default, show_default=True, help=text)


@click.command()
@_number("--checks", 100_000, "Checks of single steps.")
@_number("--modules", 2_000, "Checks of whole modules.")
@_number("--options", 10_000, "Checks of attention with its options, in each dtype.", "of_options")
@_number("--backward", 20_000, "Checks of gradients of steps, in all dtypes together; 0 leaves their graded faults out, too.")
@_number("--trials", 64, "Trials of our own simulator for every case of the properties and each contract; 0 leaves them out.")
@click.option(
    "--quick",
    is_flag=True,
    help=f"{QUICK[0]} checks of steps, {QUICK[1]} of modules, {QUICK[2]} of options, {QUICK[3]} of gradients, no trials: a sample.",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Only what compares `within_rounding` with the tolerances of kernel libraries: a table, without named faults, trials and "
    "gradients.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the cases of the correct variants.")
@click.option("--dtype", "dtypes", type=click.Choice(LOW), multiple=True, help="Repeatable; all three if it is not given.")
@click.option("--jobs", type=int, default=-1, show_default=True, help="Processes; -1 is one for each core.")
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("runs/calibration"),
    show_default=True,
    help="Where finished work is kept: the same command goes on from there.",
)
@click.option("--compiled/--no-compiled", default=False, show_default=True, help="Include torch.compile (needs a compiler).")
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also put the summary into this JSON file, in place of what it has of the same kinds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def command(
    checks: int,
    modules: int,
    of_options: int,
    backward: int,
    trials: int,
    quick: bool,
    compare: bool,
    seed: int,
    dtypes: tuple[str, ...],
    jobs: int,
    folder: Path,
    compiled: bool,
    write: Path | None,
    as_json: bool,
) -> None:
    """Measure false positives and the smallest visible fault of every budget.

    Correct variants, of steps and of their gradients, and fresh trials of our own rounding simulator must pass, named faults must
    not, and the usual rules are measured on the same data. Exit code 1 if a correct result was flagged.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from properties.evaluation.calibration import runner, table

    if jobs == 0:
        raise Refused("--jobs: expected a number of processes, or -1 for one on each core, got 0")
    checks, modules, of_options, backward, trials = QUICK if quick else (checks, modules, of_options, backward, trials)
    if compare:  # of what no rule but ours knows nothing is compared, nor what has rules of its own
        of_options = backward = trials = 0
    if compare and not checks + modules:
        raise Refused("--compare: expected --checks or --modules above 0, for a rule is relaxed until it flags no correct result")
    kept = _kept(write)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"options": of_options, "backward": backward, "trials": trials}
    wanted = list(runner.chunks(checks, modules, dtypes or LOW, **counts, named=not compare))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    lines = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("calibrating", total=len(wanted))
        for line in runner.run(wanted, seed, folder / "calibration.jsonl", jobs=jobs, compiled=compiled):
            lines.append(line)
            progress.advance(task)
    found = table.summary(lines)
    text = encoded(found, indent=1)
    (folder / "calibration.json").write_text(text + "\n", encoding="utf-8")  # what `veriformer report` shows
    if write:
        merged = kept | {dtype: kept.get(dtype, {}) | of for dtype, of in found.items()}
        write.write_text(encoded(merged, indent=1) + "\n", encoding="utf-8")
    click.echo(text if as_json else table.comparison(found) if compare else table.text(found))
    flagged = sum(of[kind]["false positives"]["ours"] for of in found.values() for kind in table.CORRECT if kind in of)
    flagged += sum(of[kind]["false positives"] for of in found.values() for kind in ("options", "simulated") if kind in of)
    raise SystemExit(1 if flagged else 0)


def _kept(path: Path | None) -> dict[str, Any]:
    """What the file of --write has, dtype by dtype."""
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(dtype in LOW and isinstance(of, dict) for dtype, of in found.items()):
        raise Refused(f"--write {path}: expected the summary of a calibration, or no such file")
    return found
