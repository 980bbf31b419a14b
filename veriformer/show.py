"""Findings on a terminal: what is broken first, each with its smallest input, then a table claim × implementation and dtype."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import msgspec
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from properties.claims import CLAIMS
from reports.cards import UNDECLARED, Alike, alike, card
from reports.outcomes import BY_NAME
from reports.records import Follows, Verdict, VerdictRecord
from reports.words import plural
from veriformer.results import Results, worst

COLOURS = {Verdict.PASS: "green", Verdict.SUSPECT: "yellow", Verdict.KNOWN_FAILURE: "yellow", Verdict.UNSUPPORTED: "dim"}
COLUMNS_SHOWN = 5  # with more, a row for each implementation and dtype in place of a column
GOOD_FIRST = (Verdict.PASS, *(verdict for verdict in Verdict if verdict is not Verdict.PASS))
LINES_SHOWN, LAST_SHOWN = 16, 2  # of a counterexample, and how many of these are its last; all of it is in verify.jsonl
ORDER = {claim.id: number for number, claim in enumerate(CLAIMS)}
CLAIM = {claim.id: claim for claim in CLAIMS}

Cell = tuple[str, str, str]
About = tuple[object, ...]


def console() -> Console:
    """Standard output; a file or a pipe gets lines that a table fits into."""
    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


class Cards:
    """What a console is told of a run: what the implementations follow, then a card for each failure, never twice.

    While a run goes on, where it is told of each verdict, or at its end.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.command: list[str] = []  # what made the run: its checks are replayed with the same options
        self.introduced = False
        self.shown: set[About] = set()

    def introduce(self, follows: list[Follows]) -> None:
        """Print the conventions and contracts in force, before all cards; more than fit are on the page alone."""
        if not self.introduced and len(follows) <= COLUMNS_SHOWN:
            for each in alike(follows):
                self.console.print(_conventions(each))
        self.introduced = True

    def wants(self, finding: VerdictRecord) -> bool:
        """Whether a verdict that has just fallen is a card's: of a failure not shown yet, with its smallest input."""
        return finding.broken and not finding.refers and _about(finding) not in self.shown

    def show(self, alike: list[VerdictRecord]) -> None:
        """Print the card of these verdicts, unless it has been printed."""
        if _about(alike[0]) not in self.shown:
            self.shown.add(_about(alike[0]))
            self.console.print(_card(alike, self.command))


def show(results: Results, cards: Cards) -> None:
    """Print everything a person needs to know about a run, but for what was shown before."""
    console, groups = cards.console, _alike(results.broken)
    cards.command = cards.command or _command(results.folder)
    cards.introduce(results.follows)
    for group in groups:
        cards.show(group)
    offered = {each.claim for each in results.findings if each.verdict != Verdict.UNSUPPORTED}
    if len({_cell(each) for each in results.findings}) > COLUMNS_SHOWN:
        _with_legend(console, _overview(results.findings), OVERVIEW)
    elif offered:
        told = [each for each in results.findings if each.claim in offered]
        _with_legend(console, _table(told), _legend(told))
    for group in groups:
        if group[0].failure and len(group) > 1:
            console.print(_reach(group))
    refusing = {each.claim for each in results.findings if each.verdict == Verdict.UNSUPPORTED and each.refused}
    if lacking := [claim for claim in ORDER if claim in {each.claim for each in results.findings} - offered - refusing]:
        console.print(Text(f"UNSUPPORTED, since it offers no step they need: {' '.join(lacking)}", "dim"))
    for line in _refusals(results.findings):
        console.print(Text(line, "yellow"))
    suspects = [(each, said) for each in results.findings if each.verdict == Verdict.SUSPECT for said in each.suspects]
    for finding, said in suspects:
        console.print(Text(f"SUSPECT {finding.claim} {finding.name}: {said}", "yellow"))
    if suspects:
        console.print(Text(f"SUSPECT: {BY_NAME['SUSPECT'].meaning}", "dim"))
    console.print(_closing(results))


def _conventions(of: Alike) -> Table:
    """What an implementation follows where there is a choice, and what PyTorch does otherwise."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row(Text(of.implementation, "bold"), Text(f"in {of.where}"))
    for name, said in (("found by probes", of.found), ("declared", of.declared)):
        if said:
            lines.add_row(Text(name), Text(said))
    if of.domain:
        lines.add_row(Text("takes, as declared" if of.domain_declared else "takes, by probes"), Text(f"domain = {of.domain}"))
    if of.warning:
        lines.add_row(Text("warning", "yellow"), Text(of.warning, "yellow"))
    for difference in of.differing:
        lines.add_row(Text("differs from torch", "yellow"), Text(difference, "yellow"))
    lines.add_row(Text("contract"), Text(_contract(of)))
    return lines


def _contract(of: Alike) -> str:
    """What is declared of the arithmetic, and what probes show of it."""
    if not of.arithmetic:
        return of.contract or UNDECLARED
    return f"{of.contract or 'none declared'}; found: {of.arithmetic}"


def _refusals(findings: list[VerdictRecord]) -> list[str]:
    """What the implementation does not take: in its words, in how many checks, and which of them verified nothing for it."""
    refusing = [each for each in findings if each.refused]
    told = []
    for name in dict.fromkeys(each.implementation for each in refusing):
        own = [each for each in refusing if each.implementation == name]
        examples = f"{sum(each.refused for each in own):,} {'example' if own[0].refused == len(own) == 1 else 'examples'}"
        told.append(f"{name} refused {examples} in {plural(len(own), 'check')}{_nothing_left(own)}")
    return told


def _nothing_left(refusing: list[VerdictRecord]) -> str:
    unsupported = [each for each in refusing if each.verdict == Verdict.UNSUPPORTED]
    nothing = [each for each in unsupported if not each.compared]
    mostly = [each for each in unsupported if each.compared]
    return _unsupported(nothing, "every example ") + _unsupported(mostly, "")


def _unsupported(refusing: list[VerdictRecord], share: str) -> str:
    """How many checks are UNSUPPORTED since so much was refused, the commonest reason, and the claims."""
    if not refusing:
        return ""
    (reason, _), *others = Counter(each.message for each in refusing).most_common()
    claims = " ".join(sorted({each.claim for each in refusing}, key=lambda claim: ORDER.get(claim, len(ORDER))))
    more = f", and {plural(len(others), 'other reason')}" if others else ""
    are = "is" if len(refusing) == 1 else "are"
    return f"; {len(refusing)} of them {are} UNSUPPORTED, {share}{reason}{more}: {claims}"


def _cell(finding: VerdictRecord) -> Cell:
    return finding.implementation, finding.dtype, finding.device


def _about(finding: VerdictRecord) -> About:
    """What is the same for all verdicts that one fault explains."""
    if finding.failure:
        return (finding.failure,)
    about = {Verdict.FAIL: finding.claim, Verdict.TIMEOUT: ""}.get(finding.verdict, finding.message)
    return _cell(finding), finding.verdict, about


def _alike(broken: list[VerdictRecord]) -> list[list[VerdictRecord]]:
    """The broken findings, those together that one fault explains."""
    groups: dict[About, list[VerdictRecord]] = {}
    for finding in broken:
        groups.setdefault(_about(finding), []).append(finding)
    return list(groups.values())


def _claims(alike: list[VerdictRecord]) -> list[str]:
    return sorted({each.claim for each in alike}, key=lambda claim: ORDER.get(claim, len(ORDER)))


def _card(alike: list[VerdictRecord], command: list[str]) -> Panel:
    """What is wrong in a sentence; then the claim, the smallest input, the numbers, and the commands that show it again."""
    finding = min(alike, key=lambda each: (each.refers, len(each.counterexample) or LINES_SHOWN**4))
    told = card(msgspec.to_builtins(finding), command)
    lines = Table.grid(padding=(0, 2, 0, 0))
    if len(_claims(alike)) == 1:
        lines.add_row(Text("claim"), Text(CLAIM[finding.claim].statement))
    if told.example:
        lines.add_row(Text("input"), Text(_beginning(told.example.splitlines())))
    if told.numbers:
        lines.add_row(Text("answer"), Text(told.numbers))
    lines.add_row(Text("check", "dim"), Text(_seen(finding, told.said), "dim"))
    lines.add_row(Text("replay", "dim"), Text("\n".join(told.commands), "dim"))
    ours = [Text("This is a defect of veriformer: please report it with this card.", "bold")] if finding.suite_error else []
    title = Text(f"{' '.join(_claims(alike))}  {finding.verdict}  {'  '.join(_cell(finding))}")
    return Panel(Group(Text(told.wrong, "bold"), *ours, lines), title=title, title_align="left", border_style="red")


def _seen(finding: VerdictRecord, said: str) -> str:
    """Which property broke, after how many examples, and its own message."""
    examples = f", {plural(finding.generated, 'example')}" if finding.generated else ""
    return f"{finding.name}{examples}" + (f": {said}" if said else "")


def _command(folder: Path) -> list[str]:
    """What made the run, as its manifest says."""
    path = folder / "manifest.json"
    return list(json.loads(path.read_text(encoding="utf-8")).get("command") or []) if path.exists() else []


def _reach(alike: list[VerdictRecord]) -> Text:
    """A line about all that one fault breaks."""
    dtypes = dict.fromkeys(each.dtype for each in alike)
    return Text(f"{alike[0].failure}: {len(alike)} checks of {' '.join(_claims(alike))} in {' '.join(dtypes)}", "red")


def _beginning(lines: list[str]) -> str:
    lines = [line for line in lines if line.strip()]
    first, more = LINES_SHOWN - LAST_SHOWN, len(lines) - LINES_SHOWN
    return "\n".join(lines if more <= 0 else [*lines[:first], f"… {more} more lines in verify.jsonl", *lines[-LAST_SHOWN:]])


WITHIN = "error / budget ≤ 1 is within rounding."
COLOURED = "Green holds; yellow is reported, exit 0; red is broken, exit 1; dim: not offered."
OVERVIEW = f"Each cell counts claims; a claim takes its worst property's verdict. {WITHIN}"


def _legend(findings: list[VerdictRecord]) -> str:
    """What the signs of a table mean, of those that stand in it."""
    groups: dict[tuple[object, ...], list[VerdictRecord]] = {}
    for each in findings:
        groups.setdefault((each.claim, *_cell(each)), []).append(each)
    part = next((verdict for each in groups.values() if "/" in (verdict := _verdict(each).plain)), "")
    planned = len(groups) == len({each.claim for each in findings}) * len(set(map(_cell, findings)))
    said = ["A claim takes its worst property's verdict, and the examples of all."]
    said += (
        [f"{part}: {part.split()[1].replace('/', ' of ')} properties hold, the others need what it does not offer."] if part else []
    )
    return " ".join([*said, *([] if planned else ["·: not planned."]), WITHIN])


def _with_legend(console: Console, table: Table, legend: str) -> None:
    console.print(table)
    console.print(Text(f"{legend} {COLOURED}" if console.color_system else legend, "dim"))


def _table(findings: list[VerdictRecord]) -> Table:
    """A row a claim, a column for each implementation, dtype and device."""
    cells = list(dict.fromkeys(map(_cell, findings)))
    table = Table("claim", "kind", *(_heading(cell, cells) for cell in cells), box=None, header_style="bold")
    table.add_column("examples", justify="right")
    table.add_column("worst error / budget", justify="right")
    rows = sorted(findings, key=lambda each: ORDER.get(each.claim, len(ORDER)))
    for claim, group in groupby(rows, key=lambda each: each.claim):
        of_claim = list(group)
        verdicts = [_verdict([each for each in of_claim if _cell(each) == cell]) for cell in cells]
        table.add_row(claim, CLAIM[claim].kind, *verdicts, _examples(of_claim), _share(of_claim))
    return table


def _overview(findings: list[VerdictRecord]) -> Table:
    """A row for each implementation, dtype and device: for how many claims each verdict stands."""
    cells = dict.fromkeys(map(_cell, findings))
    standing = {cell: _standing([each for each in findings if _cell(each) == cell]) for cell in cells}
    shown = [verdict for verdict in GOOD_FIRST if any(verdict in counts for counts in standing.values())]
    table = Table(box=None, header_style="bold")
    table.add_column("claims of", no_wrap=True)
    table.add_column("in", no_wrap=True)
    for verdict in shown:
        table.add_column(verdict, justify="right", style=COLOURS.get(verdict, "bold red"))
    table.add_column("examples", justify="right")
    table.add_column("error / budget", justify="right")
    for (implementation, *place), counts in standing.items():
        of_cell = [each for each in findings if _cell(each) == (implementation, *place)]
        where = " ".join(part for part in place if part != "cpu")
        table.add_row(
            implementation, where, *(str(counts.get(verdict, "")) for verdict in shown), _examples(of_cell), _share(of_cell)
        )
    return table


def _standing(findings: list[VerdictRecord]) -> Counter[Verdict]:
    """How many claims each verdict stands for, the worst of a claim's properties counting."""
    claims = {each.claim for each in findings}
    return Counter(worst(each for each in findings if each.claim == claim) for claim in claims)


def _heading(cell: Cell, cells: list[Cell]) -> str:
    """Of implementation, dtype and device, what is not the same for all columns; the dtype always."""
    differing = [len({other[i] for other in cells}) > 1 for i in range(3)]
    return "\n".join(part for part, shown in zip(cell, (differing[0], True, differing[2]), strict=True) if shown)


def _verdict(findings: list[VerdictRecord]) -> Text:
    """The worst verdict of a claim's properties; `PASS 3/5` where the implementation offers what three of five need."""
    if not findings:
        return Text("·", "dim")
    verdict = worst(findings)
    offered = sum(finding.verdict != Verdict.UNSUPPORTED for finding in findings)
    count = f" {offered}/{len(findings)}" if verdict is Verdict.PASS and offered < len(findings) else ""
    return Text(f"{verdict}{count}", COLOURS.get(verdict, "bold red"))


def _examples(findings: Iterable[VerdictRecord]) -> str:
    return f"{sum(finding.generated for finding in findings):,}"


def _share(findings: Iterable[VerdictRecord]) -> str:
    told = [finding for finding in findings if finding.verdict != Verdict.KNOWN_FAILURE]  # what is declared is over any budget
    shares = [finding.budget_used for finding in told if finding.budget_used is not None]
    return f"{max(shares):.2g}" if shares else "–"


def _closing(results: Results) -> Text:
    """One line: how many of each verdict, what is missing, where it is written."""
    counts = {verdict: sum(finding.verdict == verdict for finding in results.findings) for verdict in GOOD_FIRST}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    parts += [f"{len(results.missing)} {results.why_missing}"] if results.missing else []
    colour = {0: "green", 1: "bold red"}.get(results.exit_code, "bold yellow")
    folder = results.folder.relative_to(Path.cwd()) if results.folder.is_relative_to(Path.cwd()) else results.folder
    return Text(f"{', '.join(parts) or 'nothing was run'}  ({folder})", colour)
