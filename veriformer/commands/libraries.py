"""`veriformer libraries`: what of its attention each library passes."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from reports.records import Verdict
from veriformer import options, progress
from veriformer.results import Results
from veriformer.settings import Refused, nearest

HEADS = ("implementation", "library", "options", "dtype", "PASS", "UNSUPPORTED", "broken")


@click.command()
@click.argument("names", nargs=-1)
@options.asking("dtypes", "examples", "seed", "max_time", examples=15)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write a run for each. Default: runs/libraries.",
)
@click.option("--read", is_flag=True, help="Verify nothing; print the table of the runs that are in DIR.")
def command(names: tuple[str, ...], dtypes: str | None, folder: Path | None, *, read: bool, **asked: Any) -> None:
    """Verify the attention of libraries, and print a table of them in Markdown.

    NAMES are those of `veriformer list implementations` that belong to a library; none means all that are installed. A run that
    is in DIR already is not made again.
    """
    from properties.implementations.registry import LIBRARIES, library_class, library_missing, library_version

    for name in names:
        if name not in LIBRARIES:
            raise Refused(f"no library {name!r}{nearest(name, LIBRARIES)}; expected some of {', '.join(LIBRARIES)}")
    chosen, folder = options.known_dtypes(dtypes), folder or Path("runs/libraries")
    click.echo(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for name in names or LIBRARIES:
        made = library_class(name)
        about = (f"`{name}`", library_version(name), ", ".join(getattr(made, "options", ())) or "none")
        for each in [each for each in made.dtypes if not chosen or each in chosen]:
            run = folder / f"{name}-{each}"
            if not (read or run.exists() or library_missing(name)):
                progress.verify(options.with_target(options.request(target=name, dtypes=each, folder=run, **asked)))
            click.echo(f"| {' | '.join((*about, each, *_counted(run)))} |")


def _counted(run: Path) -> tuple[str, ...]:
    """How many checks of a run passed, were not offered or taken, and broke, by their verdicts."""
    results = Results.of(run)
    if not results.planned:
        return ("not run",) * 3
    counts: Counter[Any] = Counter(each.verdict for each in results.findings)
    broken = Counter(str(each.verdict) for each in results.broken)
    missing = {f"{len(results.missing)} not run": 1} if results.missing else {}
    words = [f"{count} {verdict}" for verdict, count in broken.items()] + list(missing)
    return str(counts[Verdict.PASS]), str(counts[Verdict.UNSUPPORTED]), ", ".join(words) or "0"
