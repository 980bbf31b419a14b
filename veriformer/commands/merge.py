"""`veriformer merge RUNS… -o DIR`."""

from pathlib import Path

import click

from reports.findings import Findings
from reports.folders import ReportError, read
from reports.merge import merged, write
from reports.words import plural
from veriformer.settings import Refused


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="A new or empty folder.")
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Join the run folders RUNS, shards of one plan, into one run folder.

    Refuses runs of different code and cells that two runs judge differently; overwrites nothing.
    """
    try:
        parts = [read(folder) for folder in runs]
        run = merged(parts)
        write(run, out, parts)
    except ReportError as error:
        raise Refused(str(error)) from None
    found = Findings(run)
    click.echo(f"{out}: {plural(found.done, 'verdict')} of {plural(len(runs), 'run')}, {len(found.missing)} planned and missing")
