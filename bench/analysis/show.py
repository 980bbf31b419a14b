"""A benchmark on a terminal: a table for each group, of times or of counts."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.summary import Summary
from bench.peers.table import PEERS, absence
from bench.workloads import SETS, WORKLOADS
from reports.bench_records import Cell, Comparison, Control, Counters
from reports.records import Exit
from reports.records import exit_code as exit_code_of

COLOURS = {"faster": "green", "slower": "red", "same": "", "unresolved": "yellow", "untrusted": "yellow"}


def exit_code(summary: Summary) -> Exit:
    """1 when an output was wrong or a peer failed, else 5 when a planned cell is missing, else 0."""
    statuses = {cell.status for cell in summary.cells}
    return exit_code_of(broken=bool(statuses & {"wrong", "failed"}), missing="missing" in statuses)


def show(summary: Summary, console: Console) -> None:
    """Print every group, then which peers are not installed, and whether the measurements can be trusted.

    The last columns: the first call, the memory that one call needs, and the share of the machine's limit.
    """
    compared = {line.id: line for line in summary.comparisons}
    controls = {control.group: control for control in summary.controls}
    for group in dict.fromkeys(cell.group for cell in summary.cells):
        cells = [cell for cell in summary.cells if cell.group == group and cell.status not in {"not offered", "not installed"}]
        console.print(_table(group, cells, compared), *_notes(cells, controls[group]), "", sep="\n")
    for reason in dict.fromkeys(cell.message for cell in summary.cells if cell.status == "not installed"):
        console.print(reason, markup=False, style="dim")
    for cost in summary.costs:
        if cost.ratio is not None:
            console.print(f"verify, an attention that fails by {cost.name}: {cost.note}", markup=False, highlight=False)
    trust = summary.trust
    floor = "unknown" if trust.noise_floor is None else f"±{trust.noise_floor:.1%}"
    waiting = "" if trust.pressure is None else f" · CPU pressure {trust.pressure:.0%}"
    head = "Trust" if trust.trusted else f"UNTRUSTED: {trust.message}"
    console.print(
        f"{head} · {trust.containing_one} of {trust.controls} controls contain 1 · noise floor {floor}{waiting}", markup=False
    )


def _table(group: str, cells: list[Cell], compared: dict[str, Comparison]) -> Table:
    table = _empty(group, "time", "ratio and 95 %", "verdict", "first", "MiB", "limit")
    for cell in cells:
        table.add_row(*_row(cell, compared.get(cell.id)))
    return table


def _empty(group: str, *columns: str) -> Table:
    table = Table(title=group, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("peer", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    return table


def _row(cell: Cell, line: Comparison | None) -> list[Text | str]:
    if cell.median_ns is None:
        return [Text(cell.peer), "", "", Text(cell.status, _style(cell))]
    ratio = "" if line is None or line.ratio is None else f"{line.ratio:.3g} {_interval(line.low, line.high)}".strip()
    says = Text("baseline", "dim") if line is None else Text(line.verdict, COLOURS.get(line.verdict, ""))
    first = "" if cell.first_call_ns is None else duration(cell.first_call_ns)
    peak = "" if cell.peak_bytes is None else f"{cell.peak_bytes / 2**20:.1f}"
    share = "" if cell.roof_share is None else f"{cell.roof_share:.0%}"
    return [Text(cell.peer), duration(cell.median_ns), ratio, says, first, peak, share]


def _notes(cells: list[Cell], control: Control) -> Iterator[Text]:
    """Below a table: why there is no speed, which kernels ran, what the control says."""
    for cell in cells:
        if cell.message:
            yield Text(f"{cell.peer}: {cell.message}", _style(cell))
        if cell.above_roof:
            yield Text(f"{cell.peer}: faster than this machine's limit for {cell.roof_bound}: an error of measurement", "red")
    for ran, peers in groupby(sorted(cells, key=lambda cell: cell.really), key=lambda cell: cell.really):
        if ran:
            yield Text(f"{', '.join(cell.peer for cell in peers)}: {ran}", "dim")
    if control.ratio is not None:
        style = "dim" if control.trusted else "yellow"
        yield Text(f"control: {control.ratio:.3g} {_interval(control.low, control.high)} {control.message}", style)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.3g}, {high:.3g}]"


def show_counters(lines: Sequence[Counters], console: Console) -> None:
    """Print the counts of one call of each peer, group by group, and why a count is missing."""
    shown = [line for line in lines if line.status != "not offered"]
    for group, members in groupby(shown, key=lambda line: line.group):
        table = _empty(group, "instructions", "operators", "allocated bytes")
        for line in members:
            found = (line.instructions, line.operators, line.allocated_bytes)
            counts = ["" if count is None else f"{count:,.0f}" for count in found]
            table.add_row(Text(line.peer), *(counts if line.status == "measured" else [Text(line.status, _style(line))]))
        console.print(table)
    for message in dict.fromkeys(line.message for line in shown if line.message):
        about = [line for line in shown if line.message == message]
        console.print(Text(f"{', '.join(dict.fromkeys(line.peer for line in about))}: {message}", _style(about[0])))


def _style(cell: Cell | Counters) -> str:
    return "red" if cell.status in {"wrong", "failed"} else "dim"


def duration(ns: float) -> str:
    """Nanoseconds in the unit that fits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def show_choices(console: Console) -> None:
    """Print the workloads with what they cost at least, the sets, and the peers with what they offer."""
    table = Table(title="Workloads", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "step", "GFLOP", "MB, float32", "sets"):
        table.add_column(name, justify="right" if name[0] in "GM" else "left", no_wrap=name == "name")
    for workload in WORKLOADS.values():
        sets = ", ".join(name for name, members in SETS.items() if workload.name in members)
        table.add_row(workload.name, workload.step, f"{workload.flops / 1e9:.3g}", f"{workload.bytes('float32') / 1e6:.3g}", sets)
    console.print(table)
    peers = Table(title="Peers", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "steps"):
        peers.add_column(name, no_wrap=name == "name")
    for name, row in PEERS.items():
        remarks = ["GPU only"] * row.gpu_only + ([absence(name)] if absence(name) else [])
        peers.add_row(name, Text(", ".join(row.steps) + (f" ({'; '.join(remarks)})" if remarks else "")))
    console.print(peers)
