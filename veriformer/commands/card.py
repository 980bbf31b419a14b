"""`veriformer card TARGET`."""

from typing import Any

import click

from reports.records import encoded
from veriformer import options


@click.command()
@click.argument("target")
@click.option("--as", "as_step", metavar="STEP", help="The step a callable is to be used as (`veriformer list steps`).")
@click.option(
    "--arrays", type=click.Choice(["torch", "numpy"]), help="What TARGET takes and returns. Default: what it says, else torch."
)
@click.option("--dtype", metavar="LIST", help="Comma-separated. Default: all that TARGET supports.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@options.declaring
@click.option(
    "--max-time", type=click.FloatRange(0, min_open=True), default=2.0, show_default=True, help="Seconds a call may take."
)
@click.option("--declare", is_flag=True, help="Print what was found as a class declares it, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    target: str,
    as_step: str | None,
    arrays: str | None,
    dtype: str | None,
    device: str,
    max_time: float,
    declare: bool,
    as_json: bool,
    **declared: str | None,
) -> None:
    """Say what TARGET does where there is a choice, what it takes, and how it computes.

    Found in seconds, by probes whose answers are exact: nothing is judged. TARGET is what `verify` takes. Exit code: 0 good,
    1 a declaration is contradicted, 2 usage.
    """
    declarations = options.declarations(**declared)
    dtypes, step, place = options.known_dtypes(dtype), options.known_step(as_step), options.available(device)
    with options.opened(target, step, arrays, place, max_time) as adapter:
        from properties.card.card import contract_card

        about: Any = options.declared_of(adapter, dtypes, declarations)
        card = contract_card(about, dtypes or adapter.dtypes, place)
    if as_json:
        click.echo(encoded(card, indent=1))
    else:
        from veriformer.show import console
        from veriformer.show_card import declaration, shown

        if declare:
            click.echo(declaration(card))
        else:
            for each in shown(card):
                console().print(each)
    ctx.exit(1 if card.mismatches else 0)
