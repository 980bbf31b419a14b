"""How far the verification itself can be believed: what it catches of re-created real bugs, and how often it flags correct code."""

from collections import Counter
from typing import Any

import pandas as pd

from reports import words
from reports.folders import Line, ReportError, Run
from reports.tables import Table

BASELINES = {
    "assert_close": "torch.testing.assert_close on normal inputs",
    "twice_the_baseline": "at most 2 × the error of a baseline",
}
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError)  # what reading a foreign file may raise
STATUSES = ("caught", "missed", "flagged", "equivalent", "out of scope", "not measured")


def read(run: Run) -> tuple[Line | None, list[Line]]:
    """The detection score and the calibration in a run's folder, as the page shows them; nothing for what is not there."""
    shown: list[Any] = [None, []]
    for place, (name, make) in enumerate({"score": detection, "calibration": calibration}.items()):
        if name in run.extras:
            try:
                shown[place] = make(run.extras[name])
            except MALFORMED as error:
                what = f"{type(error).__name__}: {error}"
                raise ReportError(f"{run.path / name}.json: expected the file that veriformer writes, got {what}") from None
    return shown[0], shown[1]


def detection(score: Line) -> Line:
    """The detection score as the page shows it: ours beside the baseline checks, by component, what was missed, every entry."""
    worst = min(score["by_seed"], key=lambda row: row["caught"], default={"caught": 0, "of": 0, "seed": "–", "missed": []})
    ours = {
        "name": f"this suite, at the worst of {words.plural(len(score['seeds']), 'seed')}",
        "caught": worst["caught"],
        "of": worst["of"],
    }
    rules = [{"name": name, "caught": score["usual"][rule][0], "of": score["usual"][rule][1]} for rule, name in BASELINES.items()]
    return {
        "rules": [ours, *rules],
        "missed": sorted(entry["id"] for entry in score["entries"] if entry["status"] == "missed"),
        "components": components(score),
        "entries": entries(score).to_dict("records"),
        "correct": score["correct"],
        "idle": score["claims"].get("never caught anything", []),
        "out_of_scope": score.get("out_of_scope", {}),
    }


def components(score: Line) -> list[Line]:
    """Fault classes counted by component and status."""
    counted: dict[str, Counter[str]] = {}
    for row in score["classes"]:
        counted.setdefault(row["component"], Counter())[row["status"]] += 1
    return [
        {
            "component": part,
            "classes": counts.total(),
            "counts": [(status, counts[status]) for status in STATUSES if counts[status]],
        }
        for part, counts in counted.items()
    ]


def entries(score: Line) -> Table:
    """One row a re-created bug: how it ended, which claim saw it first, after how much, and whether a baseline check sees it."""
    rows = []
    for entry in score["entries"]:
        found = [search for search in entry["searches"] if search["caught"]]
        rows.append(
            {
                **{name: entry[name] for name in ("id", "class", "component", "step", "dtype", "status")},
                "seeds caught": f"{len(found)} of {len(entry['searches'])}",
                "claims": ", ".join(sorted({search["claim"] for search in found})),
                "most examples": max((search["examples"] for search in found), default=None),
                "most seconds": max((search["seconds"] for search in found), default=None),
                **{rule: {True: "caught", False: "missed", None: "not asked"}[entry[rule]] for rule in BASELINES},
            }
        )
    return pd.DataFrame(rows)


def calibration(found: Line) -> list[Line]:
    """False positives on correct code, named faults seen, the smallest fault that shows, of steps and of gradients; a table each.

    Ours stands beside other rules.
    """
    by_dtype = {dtype: told for dtype, told in found.items() if isinstance(told, dict)}
    positives, seen, visible, of_gradients, visible_backward = [], [], [], [], []
    for dtype, told in by_dtype.items():
        for kind, name, rows in (
            ("steps", "steps", positives),
            ("modules", "modules", positives),
            ("backward", "gradients", of_gradients),
        ):
            if kind in told:
                counts = {rule: _rate(count, told[kind]["checks"]) for rule, count in told[kind]["false positives"].items()}
                rows.append({"dtype": dtype, "checked": f"{words.count(told[kind]['checks'])} {name}", **counts})
        if "named" in told:
            counts = {rule: words.count(count) for rule, count in told["named"]["seen"].items()}
            unseen = ", ".join(told["named"]["unseen by ours"]) or "none"
            seen.append({"dtype": dtype, "faults": told["named"]["faults"], **counts, "unseen by ours": unseen})
        for kind, rows in (("graded", visible), ("graded backward", visible_backward)):
            if kind in told:
                rows.append({"dtype": dtype, **{rule: f"2^−{power:.1f}" for rule, power in told[kind]["mean exponent"].items()}})
    named = {
        "False positives: checks of correct code that are flagged (number and %), by these budgets and by other rules": positives,
        "Named faults seen (number), by these budgets and by other rules": seen,
        "Smallest relative fault that is seen (mean over the faults), by these budgets and by other rules": visible,
        "False positives: correct gradients that are flagged (number and %), by these budgets and by other rules": of_gradients,
        "Smallest relative fault of a backward that is seen (mean over the faults)": visible_backward,
    }
    return [_table(name, rows) for name, rows in named.items() if rows]


def _rate(count: int, of: int) -> str:
    return f"{words.count(count)} ({words.percent(count / of) if of else '–'})"


def _table(name: str, rows: list[dict[str, Any]]) -> Line:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    heads = [column.replace("unseen by", "missed by").replace("ours", "veriformer") for column in columns]
    return {"name": name, "columns": heads, "rows": [[row.get(column, "–") for column in columns] for row in rows]}
