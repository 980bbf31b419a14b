"""`veriformer libraries`: what of its attention each library passes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from reports import merge
from reports.folders import ReportError, read
from reports.records import NOT_OFFERED, Verdict
from veriformer import options, progress
from veriformer.results import Results
from veriformer.settings import Refused, nearest

HEADS = ("implementation", "library", "options", "dtype", "PASS", "declined", "broken")


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
@click.option(
    "--read", "reading", is_flag=True, help="Verify nothing; print the table of the runs that are in DIR, or of the run DIR."
)
@click.option(
    "--join",
    "joined",
    type=click.Path(path_type=Path),
    metavar="NEW",
    help="Join them into one run in the folder NEW, without checks of what is not offered.",
)
def command(
    names: tuple[str, ...], dtypes: str | None, folder: Path | None, joined: Path | None, *, reading: bool, **asked: Any
) -> None:
    """Verify the attention of libraries, and print a table of them in Markdown.

    NAMES are those of `veriformer list implementations` that belong to a library; none means all that are installed. A run that
    is in DIR already is not made again.
    """
    from properties.implementations.registry import LIBRARIES, library_class, library_missing

    for name in names:
        if name not in LIBRARIES:
            raise Refused(f"no library {name!r}{nearest(name, LIBRARIES)}; expected some of {', '.join(LIBRARIES)}")
    chosen, folder = options.known_dtypes(dtypes), folder or Path("runs/libraries")
    if reading and not folder.is_dir():
        raise Refused(f"--run: expected a folder of runs to read, got {str(folder)!r}, which is not there")
    if joined is not None:
        try:
            merge.refuse_if_in_use(joined, "--join")  # now, and not when all have been verified
        except ReportError as error:
            raise Refused(str(error)) from None
    found = []
    whole = _found(folder) if (folder / "manifest.json").exists() else None  # DIR is a run of all of them
    click.echo(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for name in names or LIBRARIES:
        made = library_class(name)
        for each in [each for each in made.dtypes if not chosen or each in chosen]:
            run = folder / f"{name}-{each}"
            if not (reading or run.exists() or library_missing(name)):
                progress.verify(options.request(target=name, dtypes=each, folder=run, **asked))
            click.echo(row(name, each, *(whole or _found(run))))
            found += [(name, run)] if (run / "manifest.json").exists() else []
    if joined is not None:
        _join(found, joined)


def _found(run: Path) -> tuple[Results, list[dict[str, Any]]]:
    """What a run found, and its environments; nothing where there is none."""
    return Results.of(run), read(run).environments if (run / "manifest.json").exists() else []


def row(name: str, dtype: str, results: Results, environments: list[dict[str, Any]]) -> str:
    """The line of one library in one dtype, of its run or of a run that it is part of."""
    from properties.implementations.registry import library_class

    library = f"`{name}`", _version(name, dtype, environments), ", ".join(getattr(library_class(name), "options", ())) or "none"
    return f"| {' | '.join((*library, dtype, *_counted(results, name, dtype)))} |"


def _counted(results: Results, name: str, dtype: str) -> tuple[str, ...]:
    """How many checks passed, were offered and declined, and broke, by their verdicts."""

    def of(checks: Iterable[Any]) -> list[Any]:
        return [each for each in checks if (each.implementation, each.dtype) == (name, dtype)]

    its = replace(results, findings=of(results.findings), planned=of(results.planned))
    if not its.planned:
        return ("not run",) * 3
    counts = Counter(each.verdict for each in its.findings if NOT_OFFERED not in each.message)
    broken = Counter(str(each.verdict) for each in its.broken)
    missing = len(its.missing)
    words = [f"{count} {verdict}" for verdict, count in broken.items()] + [f"{missing} not run"] * bool(missing)
    return str(counts[Verdict.PASS]), str(counts[Verdict.UNSUPPORTED]), ", ".join(words) or "0"


def _version(name: str, dtype: str, environments: list[dict[str, Any]]) -> str:
    """The library and its version: as a joined run says it, or as it is installed."""
    from properties.implementations.registry import LIBRARIES, library_version

    package = LIBRARIES[name].package
    versions: dict[str, str] = next((each["versions"] for each in environments if each.get("run") == f"{name}-{dtype}"), {})
    return f"{package} {versions[package].partition('+')[0]}" if package in versions else library_version(name)


def _join(found: list[tuple[str, Path]], folder: Path) -> None:
    """One run of these, without checks of what is not offered, with each library's version among those of its environment."""
    from properties.implementations.registry import LIBRARIES, installed_version

    try:
        parts = [read(run) for _, run in found]
        run = merge.offered(merge.merged(parts))
        for (name, _), environment in zip(found, run.environments, strict=True):
            environment["versions"][LIBRARIES[name].package] = installed_version(name)
        run.manifest.pop("command", None)  # of one of them
        merge.write(run, folder)
    except ReportError as error:
        raise Refused(str(error)) from None
