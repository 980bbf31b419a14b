"""`veriformer verify TARGET`."""

from pathlib import Path
from typing import Any

import click

from properties.run.subprocesses import Interrupted
from reports.records import encoded, plain
from veriformer import options, progress
from veriformer.results import Results
from veriformer.run_options import BY_FIELD


@click.command()
@click.argument("target")
@options.asking(*BY_FIELD, seed=0)
@click.option("--quick", is_flag=True, help="A third of the examples.")
@click.option(
    "--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where to write. Default: a new folder in runs/."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(ctx: click.Context, /, *, as_json: bool, **asked: Any) -> None:
    """Verify TARGET, claim by claim.

    TARGET is a name from `veriformer list implementations`, or yours: module:attribute or path/to/file.py:attribute. It runs in
    a process of its own, so a crash or a hang is a verdict. Exit code: 0 good, 1 a claim broken, 2 usage, 5 planned checks missing.
    """
    request = options.request(**asked)
    from veriformer.show import Cards, console, show

    cards = None if as_json else Cards(console())
    try:
        results = progress.verify(request, cards)
        code: int = results.exit_code
    except Interrupted as interrupt:
        results, code = Results.of(request.run), interrupt.exit_code
    if cards is None:
        click.echo(encoded(_json(results, code), indent=1))
    else:
        show(results, cards)
    ctx.exit(code)


def _json(results: Results, code: int) -> dict[str, Any]:
    return {
        "exit_code": code,
        "run": str(results.folder),
        "planned": len(results.planned),
        "broken": len(results.broken),
        "missing": results.missing,
        "follows": results.follows,
        "why_missing": results.why_missing if results.missing else "",
        "verdicts": [{**plain(each), "broken": each.broken} for each in results.findings],
    }
