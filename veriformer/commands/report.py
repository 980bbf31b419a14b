"""`veriformer report`: the main job. Without a folder it verifies, measures and renders; with folders it only renders them."""

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from properties.run.subprocesses import Interrupted
from reports.folders import ReportError
from reports.records import Exit
from reports.render import render
from reports.summary import exit_code
from veriformer import engine, options, progress
from veriformer.commands.bench import listed, time_limit_option
from veriformer.settings import Refused

DTYPES = ("float32", "float64", "bfloat16")


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the report goes. Default: the (first) run folder."
)
@click.option("--against", type=click.Path(path_type=Path), metavar="DIR", help="An earlier run to compare with.")
@click.option(
    "--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where a new run goes. Default: a new folder in runs/."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the examples and inputs of a new run.")
@click.option("--examples", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Examples a property.")
@click.option("--workloads", default="short", show_default=True, metavar="LIST", help="What a new run times (see bench --list).")
@time_limit_option("200s", "How long a new run may measure speed.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folders: tuple[Path, ...],
    out: Path | None,
    against: Path | None,
    folder: Path | None,
    seed: int,
    examples: int,
    workloads: str,
    time_limit: float,
) -> None:
    """Verify and measure all that is built in, and write report.html, summary.md, junit.xml and tables.

    Or render the run folders FOLDERS.

    A new run verifies the oracle, the fast implementation and PyTorch's own in float32, float64 and bfloat16, then times them side
    by side, and the suite itself. Exit code, for a new run and for FOLDERS alike: 0 good, 1 a claim broken or a timed output wrong,
    2 usage, 5 something planned is missing.
    """
    from veriformer.show import console as standard_output

    console = standard_output()
    made_now = not folders
    code = Exit.GOOD
    if made_now:
        wanted = _known(workloads)
        run = options.run_folder(folder)
        try:
            code = _verify(run, seed, examples, console)
            code = max(code, _bench(run, wanted, seed, time_limit, console), key=_severity)
        except Interrupted:
            console.print(Text(f"interrupted; what is finished is kept: veriformer report {run}"))
            raise
        folders = (run,)
    try:
        written, found = render(folders, out or folders[0], against)
    except ReportError as error:
        raise Refused(str(error)) from None
    for path in written:
        if path.suffix in {".html", ".md"}:
            console.print(Text(str(path), "bold"))
    ctx.exit(code if made_now else exit_code(found))


def _known(workloads: str) -> tuple[str, ...]:
    """What is to be timed; a typing mistake is told before anything runs."""
    from bench.workloads import select

    try:
        select(listed(workloads))
    except ValueError as error:
        raise Refused(str(error)) from None
    return listed(workloads)


def _severity(code: int) -> int:
    """A broken claim says more than a missing check, which says more than good."""
    return {Exit.GOOD: 0, Exit.BROKEN: 2}.get(Exit(code), 1)


def _verify(run: Path, seed: int, examples: int, console: Console) -> int:
    from properties.implementations.registry import BUILT_IN
    from veriformer.show import Cards, show

    request = engine.Request(
        targets=tuple(BUILT_IN),
        run=run,
        dtypes=DTYPES,
        examples=examples,
        seed=seed,
        profile="quick",
        workers="auto",
    )
    cards = Cards(console)
    results = progress.verify(request, cards)
    show(results, cards)
    if not results.planned:
        raise SystemExit(Exit.MISSING)  # the properties could not be collected: there is nothing to measure beside, or to render
    return results.exit_code


def _bench(run: Path, workloads: tuple[str, ...], seed: int, time_limit_s: float, console: Console) -> int:
    from bench.analysis.show import exit_code as timed
    from bench.analysis.show import show
    from bench.runner.progress import Bar
    from bench.runner.run import run as measure

    with Bar() as bar:
        summary = measure(run, workloads, time_limit_s, progress=bar.show, seed=seed, suite=True)
    show(summary, console)
    return timed(summary)
