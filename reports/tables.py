"""Tables of what was verified: every check, the matrix of claims, what is broken, what is refuted, how near to the budget."""

from typing import Any

import msgspec
import pandas as pd

from reports.folders import Line, Run
from reports.outcomes import OUTCOMES, RANK, worst
from reports.records import BROKEN, Check, Choice, VerdictRecord

Table = Any  # a pandas.DataFrame: pandas ships no types that a checker can follow through a selection

COLUMN = ["implementation", "dtype", "device"]  # what makes a column of the matrix
WIDE_FIRST = {"float64": 0, "float32": 1, "bfloat16": 2, "float16": 3}
CHECK = ["claim", "property", "implementation", "dtype", "device"]
COUNTS = ["generated", "filtered", "refused", "compared", "undecidable", "seconds"]
ABSENT: dict[str, Any] = {"verdict": "MISSING", **dict.fromkeys(COUNTS, 0)}
"""What the row of a check says where no verdict is there; nothing else."""
SAID = [name for name in VerdictRecord.__struct_encode_fields__ if name not in ("schema", "kind", *CHECK)]


def claims(run: Run) -> Table:
    """The catalogue as the run's manifest carries it, in its order; a claim that only a verdict names is added at the end."""
    texts = ["id", "step", "kind", "statement", "formula", "expectation"]
    known = [{name: str(row.get(name, "")) for name in texts} for row in run.manifest["claims"] if isinstance(row, dict)]
    ids = {row["id"] for row in known}
    named = dict.fromkeys(each.claim for each in [*run.planned, *run.verdicts])
    strange = [
        {"id": name, "step": "", "kind": "", "statement": "a claim this run's manifest does not describe"}
        for name in named
        if name not in ids
    ]
    return pd.DataFrame([*known, *strange], columns=texts).fillna("").drop_duplicates("id").set_index("id")


def checks(run: Run) -> Table:
    """One row a check, planned or run: a planned one without a verdict is MISSING."""
    planned = dict.fromkeys(run.planned)
    done = {each.check: each for each in run.verdicts}
    rows = [_row(check, done.get(check), check in planned) for check in dict.fromkeys([*planned, *done])]
    frame = pd.DataFrame(rows, columns=[*CHECK, *SAID, "planned"])
    numbers = ["budget_used", *COUNTS]
    frame[numbers] = frame[numbers].apply(pd.to_numeric, errors="coerce")
    return frame


def _row(check: Check, found: VerdictRecord | None, planned: bool) -> Line:
    said = {**dict.fromkeys(SAID), **ABSENT} if found is None else msgspec.structs.asdict(found)
    return {**said, **msgspec.to_builtins(check), "planned": planned}


def conventions(run: Run) -> Table:
    """One row for each convention of each implementation, dtype and device, and what PyTorch does."""
    rows = [
        {"implementation": each.implementation, "dtype": each.dtype, "device": each.device, **msgspec.structs.asdict(choice)}
        for each in run.follows
        for choice in each.conventions
    ]
    return pd.DataFrame(rows, columns=[*COLUMN, *Choice.__struct_fields__])


def matrix(checked: Table, catalogue: Table) -> Table:
    """Claim × (implementation, dtype, device): the worst of the claim's properties there; UNPLANNED where the run planned none."""
    if checked.empty:
        return pd.DataFrame(index=catalogue.index, columns=pd.MultiIndex.from_arrays([[], [], []], names=COLUMN))
    columns: Any = pd.MultiIndex.from_tuples(_columns(checked), names=COLUMN)
    grid = checked.groupby(["claim", *COLUMN], sort=False)["verdict"].agg(lambda names: worst(list(names))).unstack(COLUMN)
    return grid.reindex(index=catalogue.index, columns=columns).astype(object).where(lambda told: told.notna(), "UNPLANNED")


def _columns(checked: Table) -> list[tuple[str, str, str]]:
    """The implementations in the order of the run, each one's dtypes from wide to narrow."""
    found = list(dict.fromkeys(checked[COLUMN].itertuples(index=False, name=None)))
    implementations = list(dict.fromkeys(name for name, _, _ in found))
    return sorted(
        found, key=lambda column: (implementations.index(column[0]), column[2], WIDE_FIRST.get(column[1], len(WIDE_FIRST)))
    )


def tally(grid: Table) -> Table:
    """How many claims stand how, for each column of the matrix; only outcomes that occur, worst first."""
    occurring = [outcome.name for outcome in OUTCOMES if (grid == outcome.name).any(axis=None)]
    return pd.DataFrame({name: (grid == name).sum() for name in occurring}, index=grid.columns)


def broken(checked: Table) -> list[Line]:
    """One entry a broken (claim, implementation): its worst verdict with its plainest counterexample, and where else it is broken.

    A verdict that refers to the counterexample of another, as one of the same failure, is shown with it (`shown_in`: its dtype).
    """
    entries: list[Line] = []
    red = checked[checked["verdict"].isin(BROKEN)].copy()
    explained = red[red["failure"].ne("") & ~red["refers"].astype(bool)].drop_duplicates("failure").set_index("failure")
    refers = red["refers"].astype(bool)
    for name, source in (("counterexample", "counterexample"), ("shown_in", "dtype")):
        elsewhere = red["failure"].map(explained[source].to_dict()).astype(object).fillna("")
        red[name] = red[source].where(~refers, elsewhere)
    for _, group in red.groupby(["claim", "implementation"], sort=False):
        rows = _records(group)
        lead = min(rows, key=_plainest)
        entries.append({**lead, "also": [row for row in rows if row is not lead]})
    return entries


def _plainest(row: Line) -> tuple[Any, ...]:
    return RANK[row["verdict"]], not row["counterexample"], row["refers"], len(row["counterexample"])


def missing(checked: Table) -> Table:
    """The planned checks that did not run."""
    return checked.loc[checked["verdict"] == "MISSING", CHECK]


def refuted(checked: Table, catalogue: Table) -> list[Line]:
    """One entry a claim checked that mathematics refutes: the smallest counterexample found, and where it was found or not."""
    entries: list[Line] = []
    for claim in catalogue.index[catalogue["kind"] == "refuted"]:
        rows = _records(checked[checked["claim"] == claim])
        if not rows:
            continue
        shown = [row for row in rows if row["verdict"] == "PASS" and row["counterexample"]]
        entries.append(
            {
                "claim": claim,
                **catalogue.loc[claim].to_dict(),
                "counterexample": min((row["counterexample"] for row in shown), key=lambda text: (len(text), text), default=""),
                "shown": _places(shown),
                "not_shown": _places([row for row in rows if row["verdict"] in (*BROKEN, "MISSING")]),
            }
        )
    return entries


def headroom(checked: Table) -> Table:
    """Claim and dtype: the worst error as a share of the budget, its inverse the head-room, and how much was compared."""
    judged = checked[checked["verdict"].isin(["PASS", "SUSPECT"]) & (checked["budget_used"] > 0)]
    groups = judged.groupby(["claim", "dtype"], sort=False)
    table = groups.agg(
        budget_used=("budget_used", "max"),
        checks=("budget_used", "size"),
        compared=("compared", "sum"),
        undecidable=("undecidable", "sum"),
    )
    table.insert(1, "headroom", 1 / table["budget_used"])
    return table.reset_index()


def effort(checked: Table) -> Table:
    """Claim: how hard it was tried: examples, filtered and refused ones, numbers compared, seconds."""
    ran = checked[~checked["verdict"].isin(["MISSING", "UNSUPPORTED"])]
    return ran.groupby("claim", sort=False)[COUNTS].sum().reset_index()


def _records(frame: Table) -> list[Line]:
    records: list[Any] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return records


def _places(rows: list[Line]) -> str:
    """Where a set of checks stands, as "optimized (float32, bfloat16), torch (float32)"."""
    places: dict[str, list[str]] = {}
    for row in rows:
        dtype = row["dtype"] + ("" if row["device"] == "cpu" else f" on {row['device']}")
        places.setdefault(row["implementation"], []).append(dtype)
    return ", ".join(f"{name} ({', '.join(dict.fromkeys(dtypes))})" for name, dtypes in places.items())
