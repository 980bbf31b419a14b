"""`veriformer list claims|steps|options|implementations|schema`."""

import json
from dataclasses import asdict
from typing import Any

import click
from rich.table import Column, Table
from rich.text import Text

from reports import card_records, tests_score_records
from reports.records import schema

COLUMNS = {
    "claims": ("id", "step", "kind", "statement"),
    "steps": ("name", "row", "arguments", "returns"),
    "options": ("step", "name", "given", "default", "formula"),
    "implementations": ("name", "steps", "options", "dtypes", "library", "lines"),
    "conventions": ("convention", "choice", "meaning", "libraries"),
    "libraries": ("library", "convention", "choice", "source"),
}
SCHEMAS = {"schema": schema, "card-schema": card_records.schema, "tests-score-schema": tests_score_records.schema}


def claims() -> list[dict[str, Any]]:
    """Every claim of the catalogue."""
    from properties.claims import CLAIMS

    return [asdict(claim) for claim in CLAIMS]


def steps() -> list[dict[str, Any]]:
    """Every step a user's callable may be, with the signature it must have."""
    from properties.steps import STEPS

    return [{**asdict(step), "signature": step.signature} for step in STEPS.values()]


def options() -> list[dict[str, Any]]:
    """Every option that an implementation may offer, with the step it is one of."""
    from properties.steps import OPTIONS

    return [{"step": step, **asdict(option)} for step, options in OPTIONS.items() for option in options.values()]


def implementations() -> list[dict[str, Any]]:
    """Every implementation the suite brings along; of libraries, with the version that is installed."""
    from properties.implementations.registry import BUILT_IN, LIBRARIES, built_in, library_class, library_lines, library_version
    from properties.steps import STEPS

    adapters: dict[str, Any] = {name: built_in(name) for name in BUILT_IN} | {name: library_class(name) for name in LIBRARIES}
    return [
        {
            "name": name,
            "steps": sorted(getattr(adapter, "steps", [step for step in STEPS if hasattr(adapter, step)])),
            "options": sorted(getattr(adapter, "options", ())),
            "dtypes": list(adapter.dtypes),
            "arrays": getattr(adapter, "arrays", "torch"),
            "library": "" if name in BUILT_IN else library_version(name),
            "lines": "" if name in BUILT_IN else str(library_lines(name)),
        }
        for name, adapter in adapters.items()
    ]


def conventions() -> list[dict[str, Any]]:
    """Every choice there is, what it means, and which libraries make it."""
    from properties.implementations.conventions import CONVENTIONS

    made = {(row["convention"], row["choice"], row["library"]) for row in libraries()}
    return [
        {
            "convention": name,
            "choice": choice,
            "meaning": f"{convention.what}: {meaning}",
            "libraries": sorted(library for about, chosen, library in made if (about, chosen) == (name, choice)),
        }
        for name, convention in CONVENTIONS.items()
        for choice, meaning in convention.choices.items()
    ]


def libraries() -> list[dict[str, Any]]:
    """What `--like LIBRARY` declares, and where that is written."""
    from properties.conventions.libraries import LIBRARIES

    return [
        {"library": library, "convention": convention, **row._asdict()}
        for library, rows in LIBRARIES.items()
        for convention, row in rows.items()
    ]


@click.command("list")
@click.argument("what", type=click.Choice([*COLUMNS, "schema", "card-schema"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def command(what: str, *, as_json: bool) -> None:
    """List claims, steps, options, implementations, conventions or libraries; or print a JSON Schema.

    `schema` is that of a line of verify.jsonl, `card-schema` that of what `card --json` prints.

    Steps are printed with the signature a user's callable must have: torch tensors with a leading batch axis b; masks are
    boolean, broadcastable to the shape shown, and True means *attend*.
    """
    if what in SCHEMAS:
        click.echo(json.dumps(SCHEMAS[what](), ensure_ascii=False, indent=1))
        return
    listings = {"claims": claims, "steps": steps, "options": options, "implementations": implementations}
    rows = {**listings, "conventions": conventions, "libraries": libraries}[what]()
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif what == "steps":
        for row in rows:
            click.echo(row["signature"])
    else:
        from veriformer.show import console

        table = Table(*(Column(name, overflow="fold") for name in COLUMNS[what]), box=None, header_style="bold")
        for row in rows:
            table.add_row(*(Text(", ".join(cell) if isinstance(cell := row[column], list) else cell) for column in COLUMNS[what]))
        console().print(table)
