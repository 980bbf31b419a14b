"""A contract card on a terminal: conventions beside PyTorch's, what is taken, how it computes, and what may be declared of it."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from reports.card_records import CardConvention, CardInvariance, CardNumber, CardTaken, ContractCard

MISMATCH = "CONVENTION_MISMATCH"
WIDTH = 100  # of a declaration
MANY = 5  # sizes, of which the first and the last are named where all are taken


Line = TypeVar("Line", CardNumber, CardInvariance)


def shown(card: ContractCard) -> Iterator[RenderableType]:
    """The card, part by part."""
    where = "" if card.device == "cpu" else f" on {card.device}"
    yield Text.assemble((card.implementation, "bold"), f"  in {', '.join(card.dtypes)}{where}")
    if card.conventions:
        yield _conventions(card)
    lines = Table.grid(padding=(0, 2, 0, 1))
    for name, said in _lines(card):
        lines.add_row(Text(name, "bold"), Text(said))
    yield lines
    if card.numerics:
        yield _by_dtype("arithmetic", card.dtypes, card.numerics, _number)
    if card.invariance:
        yield _by_dtype("same bits when", card.dtypes, card.invariance, _holds)
    for line in card.mismatches:
        yield Text(f"{MISMATCH} {line}", "bold red")
    yield Text(declaration(card), "dim")


def _conventions(card: ContractCard) -> Table:
    heads = ("choice", "what it does", "found by", *(["torch"] if any(row.differs for row in card.conventions) else []))
    table = Table(Column("convention", no_wrap=True), *heads, box=None, header_style="bold")
    for row in card.conventions:
        only = "" if len(row.dtypes) == len(card.dtypes) else f" ({', '.join(row.dtypes)})"
        style = "bold red" if row.mismatch else "yellow" if row.problem or row.choice == "ignored" else ""
        table.add_row(
            Text(f"{row.name}{only}"),
            Text(_choice(row), style),
            Text(row.meaning, "yellow" if row.problem not in ("", "mismatch") else ""),
            Text(row.how, "dim"),
            *([Text(row.torch if row.differs else "", "yellow")] if "torch" in heads else []),
        )
    return table


def _choice(row: CardConvention) -> str:
    if row.mismatch:
        return f"{row.choice}, declared {row.declared}"
    return row.choice or {"other": "none known"}.get(row.problem, row.problem)


def _lines(card: ContractCard) -> Iterator[tuple[str, str]]:
    """Sizes, masks, layouts, options, the domain and the contract."""
    yield from _sizes(card.sizes)
    if "attention" in card.steps:
        yield "options", ", ".join(card.options) + (f"; ignored: {', '.join(card.ignored)}" if card.ignored else "") or "none"
    yield "domain", card.domain or "none declared"
    yield "contract", card.contract or "none declared"


def _sizes(sizes: Sequence[CardTaken]) -> Iterator[tuple[str, str]]:
    kinds = {"mask": "masks", "layout": "layouts"}
    for kind in ("sizes", "masks", "layouts"):
        of = [each for each in sizes if kinds.get(each.name, "sizes") == kind]
        if of:
            yield kind, "; ".join(_taken(each, alone=kind != "sizes") for each in of)


def _taken(each: CardTaken, *, alone: bool) -> str:
    """What is taken, and what is not."""
    all_of_them = not (each.refused or each.other) and len(each.taken) > MANY
    parts = [f"{each.taken[0]} … {each.taken[-1]}" if all_of_them else ", ".join(each.taken)] if each.taken else []
    parts += [f"refused {', '.join(each.refused)}"] if each.refused else []
    parts += [f"other bits {', '.join(each.other)}"] if each.other else []
    return ("" if alone or each.taken[:1] == [each.name] else f"{each.name} ") + "; ".join(parts)


def _by_dtype(head: str, dtypes: Sequence[str], lines: Iterable[Line], cell: Callable[[Line], Text]) -> Table:
    """A row a line, a column a dtype."""
    table = Table(head, *(Column(dtype, overflow="fold") for dtype in dtypes), box=None, header_style="bold")
    rows: dict[str, dict[str, Line]] = {}
    for line in lines:
        rows.setdefault(line.name, {})[line.dtype] = line
    for of in rows.values():
        first = next(iter(of.values()))
        table.add_row(Text(first.what), *(cell(of[dtype]) if dtype in of else Text("·", "dim") for dtype in dtypes))
    return table


def _number(line: CardNumber) -> Text:
    return Text(line.value, "yellow" if line.problem else "")


def _holds(line: CardInvariance) -> Text:
    if line.holds is None:
        return Text(line.said, "yellow")
    if line.holds:
        return Text("yes")
    return Text(f"no, at {line.size}", "yellow") if line.expected else Text(f"no, at {line.size}; not expected", "dim")


def declaration(card: ContractCard) -> str:
    """What was found, as a class declares it; a domain as it declares it itself."""
    lines = [f"{name} = {_python(said)}" for name, said in card.declaration.items()]
    return "\n".join([*lines, *([f"domain = {card.domain}"] if card.domain else [])])


def _python(value: Any, indent: str = "") -> str:
    """Nested dicts of plain values as Python has them, an item a line where they do not fit on one."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    items = [f"{json.dumps(name)}: {_python(each, indent + '    ')}" for name, each in value.items()]
    line = "{" + ", ".join(items) + "}"
    if len(line) <= WIDTH:
        return line
    return "{\n" + "".join(f"{indent}    {item},\n" for item in items) + indent + "}"
