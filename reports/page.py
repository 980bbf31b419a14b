"""What the templates are given: the findings, ordered and shortened as a page shows them."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reports import plots, proof, speeds, summary, words
from reports.cards import UNDECLARED, alike
from reports.cards import card as told_of
from reports.findings import Findings
from reports.folders import Line
from reports.outcomes import BY_NAME, COMPARED, OUTCOMES, Outcome
from reports.tables import Table, tally

FOREST_WIDTH = 200  # of the interval's picture, in its own units
FOREST_TICKS = (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16, 64)


def context(found: Findings) -> dict[str, Any]:
    """Everything the templates need, but for `rows`: after how many entries a list is cut."""
    headline, tone = summary.headline(found)
    detection, calibration = proof.read(found.run)
    return {
        "found": found,
        "headline": headline,
        "tone": tone,
        "points": summary.points(found),
        "matrix": matrix(found),
        "conventions": alike(found.run.follows),
        "undeclared": UNDECLARED,
        "legend": [outcome for outcome in OUTCOMES if (found.matrix == outcome.name).any(axis=None)],
        "broken": [card(found, entry, number) for number, entry in enumerate(found.broken, 1)],
        "known": known_failures(found.checks),
        "missing": found.missing.to_dict("records"),
        "refuted": found.refuted,
        "headroom": headroom(found.headroom),
        "effort": found.effort.to_dict("records"),
        "workloads": workloads(found),
        "not_installed": found.not_installed.to_dict("records"),
        "ran": ran(found),
        "forest": forest_axis(found.ratios),
        "beside_the_best": found.beside_the_best.to_dict("records"),
        "by_peer": found.by_peer.to_dict("records"),
        "growth": found.growth.to_dict("records"),
        "roofs": found.roofs.to_dict("records"),
        "controls": found.controls.to_dict("records"),
        "predecessors": speeds.by_predecessor(found.run).to_dict("records"),
        "load": speeds.load(found.run),
        "counted": found.counted.loc[found.counted["status"] != "not installed"].to_dict("records"),
        "costs": found.costs.to_dict("records"),
        "plots": {name: plot for name, draw in PLOTS.items() if (plot := draw(found)) is not None},
        "change": found.against,
        "environments": found.environments(),
        "plan": found.plan(),
        "detection": detection,
        "calibration": calibration,
        "sections": SECTIONS,
        "exponent": plots.exponent,
        "compared": COMPARED,
        "compared_legend": compared_legend(found.ratios),
        "outcomes": BY_NAME,
    }


SECTIONS = (
    ("matrix", "Claims"),
    ("broken", "Broken"),
    ("refuted", "Refuted"),
    ("detection", "Detection"),
    ("tolerance", "Budgets"),
    ("bench", "Time"),
    ("growth", "Growth"),
    ("roof", "Roofline"),
    ("change", "Regression"),
    ("trust", "Trust"),
    ("environment", "Environment"),
)
PLOTS: dict[str, Callable[[Findings], plots.Plot | None]] = {
    "headroom": lambda found: plots.headroom(found.headroom),
    "time": lambda found: plots.scaling(found.growth, "time"),
    "memory": lambda found: plots.scaling(found.growth, "memory"),
    "roofline": lambda found: plots.roofline(found.timed, found.roofs),
    "drift": lambda found: plots.drift(found.drift),
}


def matrix(found: Findings) -> Line:
    """The matrix as its template walks it: column heads, and for each step of the article its claims with their cells."""
    grid = found.matrix
    cards = {(entry["claim"], entry["implementation"]): number for number, entry in enumerate(found.broken, 1)}
    several = len({device for _, _, device in grid.columns}) > 1
    columns = [
        {"implementation": name, "dtype": dtype, "device": device if several else ""} for name, dtype, device in grid.columns
    ]
    steps: dict[str, list[Line]] = {}
    for claim, row in grid.iterrows():
        text = found.claims.loc[claim]
        cells = [
            {"outcome": BY_NAME[told], "card": cards.get((claim, column[0])) if BY_NAME[told].tone == "bad" else None}
            for column, told in row.items()
        ]
        steps.setdefault(text["step"], []).append({"claim": claim, **text.to_dict(), "cells": cells, "planned": any_planned(cells)})
    spans: list[Line] = []
    for number, column in enumerate(columns):
        if not spans or spans[-1]["name"] != column["implementation"]:
            spans.append({"name": column["implementation"], "first": number, "width": 0})
        spans[-1]["width"] += 1
    counts = [{"column": column, "counts": counted} for column, counted in zip(columns, _counts(grid), strict=True)]
    return {"columns": columns, "spans": spans, "steps": steps, "tally": counts}


def any_planned(cells: list[Line]) -> bool:
    """Whether a claim was to be checked anywhere: where it was not, no red cell says that it is missing."""
    return any(cell["outcome"].name != "UNPLANNED" for cell in cells)


def _counts(grid: Table) -> list[list[tuple[Any, int]]]:
    table = tally(grid)
    return [[(BY_NAME[name], int(count)) for name, count in row.items() if count] for _, row in table.iterrows()]


def card(found: Findings, entry: Line, number: int) -> Line:
    """A broken claim as its card shows it."""
    texts: dict[str, str] = found.claims.loc[entry["claim"]].to_dict()
    command = [str(part) for part in found.run.manifest.get("command") or []]
    budget_used = entry["budget_used"]
    return {
        **texts,
        **entry,
        **vars(told_of(entry, command)),
        "number": number,
        "outcome": BY_NAME[entry["verdict"]],
        # the budget as a share of the error
        "over": 1 / budget_used if not words.absent(budget_used) and budget_used > 1 else None,
    }


def known_failures(checked: Table) -> list[Line]:
    """One entry a claim and implementation that fails as it declares: in which dtypes, and the reason."""
    groups = checked[checked["verdict"] == "KNOWN_FAILURE"].groupby(["claim", "implementation"], sort=False)
    return [
        {"claim": claim, "implementation": name, "dtypes": list(rows["dtype"].unique()), "reason": rows["message"].iloc[0]}
        for (claim, name), rows in groups
    ]


def headroom(table: Table) -> list[Line]:
    """The head-room table, the tightest first."""
    return table.sort_values("budget_used", ascending=False, kind="stable").to_dict("records")


def workloads(found: Findings) -> list[Line]:
    """The timed cells of installed peers, group by group, each with its ratio and the place of its interval on the common axis."""
    ratios: dict[str, Line] = {row["id"]: row for row in found.ratios.to_dict("records")}
    baselines = {(row["group"], row["baseline"]) for row in ratios.values()}
    reach = _reach(found.ratios)
    groups: dict[str, Line] = {}
    for cell in found.timed.loc[found.timed["status"] != "not installed"].to_dict("records"):
        group = groups.setdefault(
            cell["group"], {"name": cell["group"], "cells": [], **{k: cell[k] for k in ("workload", "dtype", "device", "threads")}}
        )
        compared = ratios.get(cell["id"])
        is_baseline = (cell["group"], cell["peer"]) in baselines
        group["cells"].append({**cell, "ratio": compared, "mark": _mark(compared, reach), "is_baseline": is_baseline})
    return list(groups.values())


def compared_legend(ratios: Table) -> list[Outcome]:
    """What the verdicts on timings mean, of those that stand in the table."""
    least, most = (f"{100 * margin:.2g}" for margin in (ratios["margin"].min(), ratios["margin"].max()))
    margin, told = f"{least} %" if least == most else f"{least}–{most} %", set(ratios["verdict"])
    return [replace(one, meaning=one.meaning.format(margin=margin)) for name, one in COMPARED.items() if name in told]


def ran(found: Findings) -> list[Line]:
    """What really ran, by peer: the tier or kernel chosen, and in which groups."""
    told: dict[tuple[str, str], list[str]] = {}
    for cell in found.timed.dropna(subset=["median_ns"]).to_dict("records"):
        told.setdefault((cell["peer"], cell["really"]), []).append(cell["group"])
    return [{"peer": peer, "really": really, "groups": groups} for (peer, really), groups in sorted(told.items()) if really]


def forest_axis(ratios: Table) -> Line:
    """The common axis of the interval pictures."""
    reach = _reach(ratios)
    ticks = [tick for tick in FOREST_TICKS if abs(math.log(tick)) <= reach]
    return {
        "width": FOREST_WIDTH,
        "ticks": [{"x": _x(tick, reach), "label": f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"} for tick in ticks],
    }


def _reach(ratios: Table) -> float:
    """How far the axis goes to either side of 1, as a logarithm."""
    ends = [abs(math.log(value)) for name in ("low", "high") for value in ratios[name] if value > 0]
    return max([1.05 * math.log(2), *(1.05 * end for end in ends)])


def _mark(compared: Line | None, reach: float) -> Line | None:
    if compared is None:
        return None
    band = 1 + compared["margin"]
    places = {"low": compared["low"], "middle": compared["ratio"], "high": compared["high"], "from": 1 / band, "to": band}
    return {name: _x(value, reach) for name, value in places.items()} | {"one": _x(1, reach)}


def _x(value: float, reach: float) -> float:
    return round(FOREST_WIDTH * (0.5 + math.log(value) / reach / 2), 1)
