"""Figures as inline SVG. They take their colours from the page (light, dark, paper), and the same data give the same bytes."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports import words
from reports.tables import Table

INK, MUTED, LINE, BAD, SURFACE = (f"#0a0b{code:02x}" for code in range(0x10, 0x15))  # stand-ins, replaced by the page's colours
SERIES = [f"#0a0c{code:02x}" for code in range(8)]
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    BAD: "--bad",
    SURFACE: "--paper",
    **{colour: f"--s{place + 1}" for place, colour in enumerate(SERIES)},
}
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "veriformer",
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """One figure: its SVG, and the tokens for who does not see it."""

    name: str
    title: str
    description: str  # the conclusion, in a sentence
    svg: str


@contextmanager
def panels(count: int, height: float = 3.4) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure with `count` panels beside each other, two a row, in the page's style."""
    columns = min(count, 2)
    rows = -(-count // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for unused in axes[count:]:
            unused.set_axis_off()
        yield figure, axes[:count]


def drawn(figure: Figure, name: str, title: str, description: str) -> Plot:
    """The figure as SVG that may stand in a page beside others: unique ids, the page's colours and font, no metadata."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _ids(text, name)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]+; ?", "", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    text = re.sub(r"\s*\n\s*", "\n", text)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" class="plot" viewBox='
    label = f'<title id="{name}-title">{_escaped(title)}</title><desc id="{name}-desc">{_escaped(description)}</desc>'
    text = re.sub(r"<svg .*?viewBox=(\"[^\"]*\").*?>", lambda match: f"{head}{match[1]}>{label}", text, count=1, flags=re.DOTALL)
    return Plot(name, title, description, text.strip())


def _ids(text: str, name: str) -> str:
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\1{name}-", text)
    return text.replace("xlink:href", "href")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def literal(text: object) -> str:
    """A name as it is: matplotlib takes a pair of dollars for a formula."""
    return str(text).replace("$", r"\$")[:60]


def scaling(grown: Table, quantity: str) -> Plot | None:
    """Time or memory against length, log-log, a panel for each family, dtype and device."""
    table = grown[grown["quantity"] == quantity]
    groups = list(table.groupby(["family", "dtype", "device"], sort=True))[:6]
    if not groups:
        return None
    unit: Callable[[Any], str] = words.time if quantity == "time" else words.size
    peers = sorted(table["peer"].unique())
    with panels(len(groups)) as (figure, axes):
        for axis, (named, group) in zip(axes, groups, strict=True):
            for row in group.to_dict("records"):
                place = peers.index(row["peer"])
                axis.plot(row["lengths"], row["values"], label=literal(row["peer"]), **_look(place))
            axis.set(xscale="log", xlabel=f"length {literal(group['axis'].iloc[0])}", title=literal(" · ".join(named)))
            axis.set_yscale("log", base=10 if quantity == "time" else 2)
            lengths = sorted({length for row in group["lengths"] for length in row})
            axis.set_xticks(lengths, [str(length) for length in lengths])
            axis.minorticks_off()
            _plain(axis.yaxis, unit)
            axis.legend(fontsize=9)
        what = "Time per call" if quantity == "time" else "Peak memory"
        fitted = table.dropna(subset=["exponent"]).to_dict("records")
        said = "; ".join(f"{row['peer']} {row['dtype']}: {exponent(row)}" for row in fitted)
        told = f"Fitted exponents: {said}." if said else "Too few lengths for a fitted exponent."
        return drawn(figure, f"scaling-{quantity}", f"{what} against length", told)


def exponent(row: dict[str, Any]) -> str:
    """A fitted exponent with its interval and the lengths it was fitted over, or that there is none."""
    if words.absent(row["exponent"]):
        return "no exponent fitted"
    between = f" [{row['low']:.2f}, {row['high']:.2f}]" if not words.absent(row["low"]) else ""
    return f"n^{row['exponent']:.2f}{between} over {row['first']:.0f}–{row['last']:.0f}"


def roofline(timed: Table, limits: Table) -> Plot | None:
    """Work done a second against work a byte, under the limits measured in the same run."""
    points = timed.dropna(subset=["flops_per_s", "flops", "bytes"])
    points = points[(points["flops"] > 0) & (points["bytes"] > 0)]
    groups = [(named, group, _limits(limits, named)) for named, group in points.groupby(["dtype", "device", "threads"], sort=True)]
    groups = [(named, group, found) for named, group, found in groups if found is not None][:4]
    if not groups:
        return None
    peers = sorted(points["peer"].unique())
    above = int(points["above_roof"].fillna(value=False).astype(bool).sum())
    with panels(len(groups), height=3.8) as (figure, axes):
        for axis, (named, group, (products, bandwidth)) in zip(axes, groups, strict=True):
            intensity = group["flops"] / group["bytes"]
            corner = products / bandwidth
            left, right = min(intensity.min(), corner) / 2, max(intensity.max(), corner) * 2
            axis.plot([left, corner, right], [left * bandwidth, products, products], color=INK, linewidth=1.4)
            for peer, rows in group.groupby("peer", sort=True):
                look = _look(peers.index(peer)) | {"linestyle": "none"}
                axis.plot(rows["flops"] / rows["bytes"], rows["flops_per_s"], label=literal(peer), **look)
            over = group[group["above_roof"].fillna(value=False).astype(bool)]
            axis.plot(over["flops"] / over["bytes"], over["flops_per_s"], "x", color=BAD, markersize=12, markeredgewidth=2)
            axis.set(
                xscale="log",
                yscale="log",
                xlabel="arithmetic intensity (flop/byte)",
                title=literal(f"{named[0]} · {named[1]} · threads: {named[2]}"),
            )
            _plain(axis.xaxis, lambda value: f"{value:g}")
            _plain(axis.yaxis, lambda value: words.rate(value, "flop/s"))
            axis.legend(fontsize=9)
        said = (
            f"{words.plural(above, 'point')} above the roof: an error of measurement." if above else "No point lies above the roof."
        )
        return drawn(figure, "roofline", "Roofline: flop/s against flop/byte, under the limits measured in this run", said)


def _limits(limits: Table, named: tuple[Any, ...]) -> tuple[float, float] | None:
    dtype, device, threads = named
    here = limits[(limits["device"] == device) & (limits["threads"].astype(str) == str(threads))]
    products = here.loc[(here["limit"] == "products") & (here["dtype"] == dtype), "rate"]
    memory = here.loc[here["limit"].isin(["read", "copy"]), "rate"]
    return (float(products.max()), float(memory.max())) if len(products) and len(memory) else None


def headroom(table: Table) -> Plot | None:
    """How near the worst error of each claim came to its budget, a mark for each dtype."""
    if table.empty:
        return None
    order = list(dict.fromkeys(table["claim"]))
    half = -(-len(order) // 2)
    columns = [part for part in (order[:half], order[half:]) if part]
    left = table["budget_used"].min() / 1.5
    with panels(len(columns), height=1.1 + 0.19 * half) as (figure, axes):
        for axis, part in zip(axes, columns, strict=True):
            for place, (dtype, rows) in enumerate(table.groupby("dtype", sort=True)):
                here = rows[rows["claim"].isin(part)]
                look = _look(place) | {"linestyle": "none"}
                axis.plot(here["budget_used"], [part.index(claim) for claim in here["claim"]], label=literal(dtype), **look)
            axis.axvline(1, color=BAD, linewidth=1.4)
            axis.set(
                xscale="log",
                xlim=(left, 1.5),
                xlabel="worst error / budget (1: all that rounding explains)",
                ylim=(half - 0.5, -0.5),
            )
            axis.set_yticks(range(len(part)), [literal(claim) for claim in part], fontsize=9)
            _plain(axis.xaxis, lambda value: f"{value:g}")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=8, fontsize=9)
        nearest = table.loc[table["budget_used"].idxmax()]
        said = f"Nearest to its budget: {nearest['claim']} in {nearest['dtype']}, {words.of_budget(nearest['budget_used'])}."
        return drawn(figure, "headroom", "Worst error of each claim as a share of its budget", said)


def drift(table: Table) -> Plot | None:
    """Every process's median over the time of the run, relative to the same peer's median over all of it."""
    if table.empty:
        return None
    peers = sorted(table["peer"].unique())
    with panels(1, height=3.2) as (figure, (axis,)):
        for place, peer in enumerate(peers):
            rows = table[table["peer"] == peer]
            axis.plot(rows["minutes"], rows["relative"], label=literal(peer), alpha=0.8, **(_look(place) | {"linestyle": "none"}))
        axis.axhline(1, color=INK, linewidth=1)
        axis.set(xlabel="minutes since the first process", ylabel="time / median (ratio)")
        axis.legend(fontsize=9, ncols=4, loc="upper left")
        spread = table["relative"].quantile([0.05, 0.95])
        between = f"{spread.iloc[0]:.3f} and {spread.iloc[1]:.3f}"
        said = f"Nine tenths of the processes' medians lie between {between} of their peer's own median."
        return drawn(figure, "drift", "Drift over the time of the run", said)


def _look(place: int) -> dict[str, Any]:
    return {
        "color": SERIES[place % len(SERIES)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
        "markersize": 5,
        "linewidth": 1.6,
    }


def _plain(axis: Any, said: Callable[[float], str]) -> None:
    """Label an axis in words; where it spans less than two decades, also between them."""
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high < 100 * low and axis.get_transform().base == 10:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"\.0+(?=\D|$)", "", said(value))))
