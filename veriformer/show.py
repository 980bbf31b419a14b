"""Findings on a terminal: broken claims first, each with its smallest input, then a table claim × implementation and dtype."""

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from properties.claims import CLAIMS
from properties.verdicts import Verdict
from veriformer.findings import Finding
from veriformer.results import Results, worst

COLOURS = {Verdict.PASS: "green", Verdict.SUSPECT: "yellow", Verdict.KNOWN_FAILURE: "yellow", Verdict.UNSUPPORTED: "dim"}
ORDER = {claim.id: number for number, claim in enumerate(CLAIMS)}
KINDS = {claim.id: claim.kind for claim in CLAIMS}
STATEMENTS = {claim.id: claim.statement for claim in CLAIMS}


def show(results: Results, console: Console) -> None:
    """Print everything a person needs to know about a run."""
    for finding in results.broken:
        console.print(_card(finding))
    console.print(_table(results.findings))
    console.print(_closing(results))


def _card(finding: Finding) -> Panel:
    """A broken claim: what it says, what was seen, the smallest input."""
    lines = [Text(STATEMENTS.get(finding.claim, "")), Text(finding.message, "bold")]
    if finding.expected is not None or finding.got is not None:
        place = f" at {finding.place}" if finding.place else ""
        lines.append(Text(f"expected {finding.expected}, got {finding.got}{place}"))
    if finding.counterexample and finding.counterexample not in finding.message:
        lines.append(Text(finding.counterexample))
    again = f"--claims {finding.claim} --dtype {finding.dtype} --seed {finding.seed}"
    lines.append(Text(f"{finding.name}, {_examples([finding])} examples; again: {again}", "dim"))
    title = Text(f"{finding.claim}  {finding.verdict}  {finding.implementation}  {finding.dtype}  {finding.device}")
    return Panel(Group(*lines), title=title, title_align="left", border_style="red")


def _table(findings: list[Finding]) -> Table:
    """A row a claim, a column for each implementation, dtype and device."""
    cells = list(dict.fromkeys((each.implementation, each.dtype, each.device) for each in findings))
    table = Table("claim", "kind", *(_heading(cell, cells) for cell in cells), box=None, header_style="bold")
    table.add_column("examples", justify="right")
    table.add_column("worst error / budget", justify="right")
    rows = sorted(findings, key=lambda each: ORDER.get(each.claim, len(ORDER)))
    for claim, group in groupby(rows, key=lambda each: each.claim):
        of_claim = list(group)
        by_cell = [[each for each in of_claim if (each.implementation, each.dtype, each.device) == cell] for cell in cells]
        table.add_row(claim, KINDS.get(claim, ""), *map(_verdict, by_cell), _examples(of_claim), _share(of_claim))
    return table


def _heading(cell: tuple[str, str, str], cells: list[tuple[str, str, str]]) -> str:
    """Of implementation, dtype and device, what is not the same for all columns; the dtype always."""
    differing = [len({other[i] for other in cells}) > 1 for i in range(3)]
    return "\n".join(part for part, shown in zip(cell, (differing[0], True, differing[2]), strict=True) if shown)


def _verdict(findings: list[Finding]) -> Text:
    """The worst verdict of a claim's properties; `PASS 3/5` where the implementation offers what three of five need."""
    if not findings:
        return Text("·", "dim")
    verdict = worst(findings)
    offered = sum(finding.verdict != Verdict.UNSUPPORTED for finding in findings)
    count = f" {offered}/{len(findings)}" if verdict is Verdict.PASS and offered < len(findings) else ""
    return Text(f"{verdict}{count}", COLOURS.get(verdict, "bold red"))


def _examples(findings: Iterable[Finding]) -> str:
    return f"{sum(finding.generated for finding in findings):,}"


def _share(findings: Iterable[Finding]) -> str:
    shares = [finding.share for finding in findings if finding.share is not None]
    return f"{max(shares):.2g}" if shares else "–"


def _closing(results: Results) -> Text:
    """One line: how many of each, what is missing, where it is written."""
    counts = {verdict: sum(finding.verdict == verdict for finding in results.findings) for verdict in Verdict}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    parts += [f"{len(results.missing)} planned and not run"] if results.missing else []
    colour = {0: "green", 1: "bold red"}.get(results.exit_code, "bold yellow")
    return Text(f"{', '.join(parts) or 'nothing was run'}  ({results.folder})", colour)
