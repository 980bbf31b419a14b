"""`veriformer verify TARGET`."""

from pathlib import Path
from typing import Any

import click

from properties.run.subprocesses import Interrupted
from reports.records import encoded, plain
from veriformer import options, progress
from veriformer.results import Results


@click.command()
@click.argument("target")
@click.option("--as", "as_step", metavar="STEP", help="The step a callable is to be used as (`veriformer list steps`).")
@click.option(
    "--arrays", type=click.Choice(["torch", "numpy"]), help="What TARGET takes and returns. Default: what it says, else torch."
)
@click.option("--dtype", metavar="LIST", help="Comma-separated. Default: all that TARGET supports.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--claims", metavar="LIST", help="Comma-separated claim ids. Default: all.")
@click.option("--backward", is_flag=True, help="Gradients too: by autograd, of what TARGET offers forward alone.")
@options.declaring
@click.option("--examples", type=click.IntRange(1), metavar="N", help="Examples a property. Default: what the profile says.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the examples: one seed, one run.")
@click.option("--maxfail", type=click.IntRange(1), metavar="N", help="Run nothing more once so many checks are broken.")
@click.option("--quick", is_flag=True, help="A third of the examples.")
@click.option(
    "--max-time", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds a call may take."
)
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
    request = options.with_target(options.request(**asked))
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
