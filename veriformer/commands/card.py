"""`veriformer card TARGET`."""

import time
from typing import Any

import click

from reports.records import encoded
from veriformer import options
from veriformer.run_options import DECLARED

BEGAN = time.monotonic()  # but for the interpreter's own start, the command began here


@click.command()
@click.argument("target")
@options.asking("step", "arrays", "dtypes", "device", *DECLARED, "max_time", max_time=2.0)
@click.option("--declare", is_flag=True, help="Print what was found as a class declares it, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    target: str,
    step: str | None,
    arrays: str | None,
    dtypes: str | None,
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
    chosen, place = options.known_dtypes(dtypes), options.available(device)
    options.start_early(target, arrays)
    from properties.card.card import contract_card  # imports torch, while the target's process does

    with options.opened(target, options.known_step(step), arrays, place, max_time) as adapter:
        about: Any = options.declared_of(adapter, chosen, declarations)
        card = contract_card(about, chosen or adapter.dtypes, place)
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
            console().print(
                f"{card.seconds:.1f} s of probes, {time.monotonic() - BEGAN:.1f} s in all", style="dim", highlight=False
            )
    ctx.exit(1 if card.mismatches else 0)
