"""`veriformer compare BEFORE AFTER [AGAIN]`."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import words
from reports.compare import MARGIN, Compared, compared
from reports.folders import ReportError, read
from reports.outcomes import BY_NAME
from reports.records import encoded
from veriformer.settings import Refused

FOLDER = click.Path(path_type=Path)
COLOURS = {"bad": "bold red", "warn": "yellow", "good": "green", "none": "dim"}


class Margin(click.ParamType):
    """A share as `3%` or `0.03`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share as a number."""
        try:
            share = float(str(value).removesuffix("%")) / (100 if str(value).endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            self.fail(f"expected a share from 0 to 1 such as 3% or 0.03, got {value!r}", param, ctx)
        return share


@click.command()
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER)
@click.argument("again", type=FOLDER, required=False)
@click.option("--confirm", type=FOLDER, metavar="DIR", help="A second run of AFTER's code; the same as AGAIN.")
@click.option("--margin", type=Margin(), default=MARGIN, metavar="SHARE", help="What counts as the same speed. Default: 3%.")
@click.option("--across-machines", is_flag=True, help="Compare runs of different machine classes all the same.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    before: Path,
    after: Path,
    again: Path | None,
    confirm: Path | None,
    margin: float,
    *,
    across_machines: bool,
    as_json: bool,
) -> None:
    """Compare the run in AFTER with the run in BEFORE: changed verdicts and counts, and what became slower.

    Times are taken relative to each run's baseline. One run is no proof of a slowdown: give a second one of the same code as AGAIN.
    Counts decide nothing. Exit code: 0 good, 1 a claim holds no longer, 2 usage, 3 a slowdown that both runs show, 5 what was there
    did not run.
    """
    if again is not None and confirm is not None:
        raise Refused("expected the confirming run once, got it as AGAIN and as --confirm")
    confirming = again or confirm
    try:
        change = compared(
            read(before),
            read(after),
            again=None if confirming is None else read(confirming),
            margin=margin,
            across_machines=across_machines,
        )
    except ReportError as error:
        raise Refused(str(error)) from None
    if as_json:
        click.echo(encoded(_json(change), indent=1))
    else:
        _show(change, Console(highlight=False), confirmed=confirming is not None)
    ctx.exit(change.exit_code)


def _show(change: Compared, console: Console, *, confirmed: bool) -> None:
    if change.machines:
        console.print(Text(f"different machine classes: {change.machines}", "yellow"))
    if len(change.verdicts):
        console.print(_verdicts(change))
    if len(change.timings):
        console.print(_timings(change))
    console.print(Text(f"{words.plural(len(change.verdicts), 'verdict')} changed, {len(change.newly_broken)} newly broken"))
    console.print(Text(f"timings: {_tally(change.timings) or 'none in both runs'}"))
    if len(change.counters):
        console.print(Text(f"counts: {_tally(change.counters)}"))
    for row in change.recounted.to_dict("records"):
        numbers = f"{words.count(row['before'])} → {words.count(row['after'])}, × {words.ratio(row['ratio'])}"
        console.print(Text(f"{row['id']}: {words.spoken(row['count'])} {numbers}", "yellow" if row["verdict"] != "fewer" else ""))
    if len(change.slowdowns) and not confirmed:
        console.print(Text("a slowdown in one run is no proof: run again and give that run as a third folder", "yellow"))


def _tally(table: Any) -> str:
    """How many rows of each verdict."""
    return ", ".join(f"{count} {word}" for word, count in table["verdict"].value_counts().items())


def _verdicts(change: Compared) -> Table:
    table = Table("claim", "implementation", "before", "after", box=None, header_style="bold")
    for row in change.verdicts.to_dict("records"):
        told = [BY_NAME[row[when]] for when in ("before", "after")]
        cells = [Text(f"{outcome.glyph} {outcome.word}", COLOURS[outcome.tone]) for outcome in told]
        table.add_row(Text(row["claim"]), Text(f"{row['implementation']} {row['dtype']} {row['device']}"), *cells)
    return table


def _timings(change: Compared) -> Table:
    table = Table("cell", "baseline", "before", "after", "after / before", "95 % interval", "", box=None, header_style="bold")
    for row in change.timings.to_dict("records"):
        numbers = [words.ratio(row[name]) for name in ("before", "after", "ratio")]
        word = f"{row['verdict']}, confirmed" if row["confirmed"] else row["verdict"]
        style = "bold red" if row["confirmed"] else "yellow" if row["verdict"] in {"slower", "removed", "untrusted"} else ""
        interval = words.interval(row["low"], row["high"])
        table.add_row(Text(row["id"]), Text(str(row["baseline"] or "–")), *numbers, interval, Text(word, style))
    return table


def _json(change: Compared) -> dict[str, Any]:
    return {
        "exit_code": change.exit_code,
        "before": change.before.id,
        "after": change.after.id,
        "margin": change.margin,
        "machines": change.machines,
        "verdicts": json.loads(change.verdicts.to_json(orient="records")),
        "counters": json.loads(change.counters.to_json(orient="records")),
        "timings": json.loads(change.timings.to_json(orient="records")),
    }
