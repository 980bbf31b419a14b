"""`veriformer explain CLAIM`."""

import click
from rich.console import Console
from rich.markup import escape

from veriformer.settings import Refused, nearest

KINDS = {
    "law": "a law: it holds, and must hold for every implementation",
    "refuted": "refuted: a counterexample is found on every implementation, and the corrected statement holds there",
    "study": "a study: a table and a plot, no verdict",
}


@click.command()
@click.argument("claim")
def command(claim: str) -> None:
    """Say what CLAIM states, and what mathematics says about it."""
    from properties.claims import CLAIMS

    by_id = {each.id.lower(): each for each in CLAIMS}
    found = by_id.get(claim.lower())
    if found is None:
        known = [each.id for each in CLAIMS]
        raise Refused(f"no claim {claim!r}{nearest(claim, known)}; expected one of {', '.join(known)}")
    console = Console(highlight=False)
    console.print(f"[bold]{found.id}[/] · {found.step} · {KINDS[found.kind]}")
    for label, text in (("The claim", found.statement), ("Formally", found.formula), ("To be seen", found.expectation)):
        console.print(f"[bold]{label}[/]: {escape(text)}")
