"""Tables of what was counted: instructions, operators and bytes of one call, in one run and from one run to another."""

from typing import Any

import pandas as pd

from reports.folders import Line, Run
from reports.speeds import BELIEVED, NAMED, lines
from reports.tables import Table

COUNTS = ("instructions", "operators", "allocated_bytes")
COMPARED = ["id", "count", "before", "after", "ratio", "verdict"]


def counts(run: Run) -> Table:
    """One row a cell that was counted or should have been. What gave a wrong result has no counts at all."""
    done = {line["id"]: line for line in lines(run, "counters")}
    planned = [str(cell) for cell in run.manifest.get("counters_planned") or []]
    rows = [_row(done[name]) if name in done else _uncounted(name) for name in dict.fromkeys([*planned, *done])]
    table = pd.DataFrame(rows, columns=[*NAMED, "status", "message", *COUNTS])
    table[[*COUNTS]] = table[[*COUNTS]].apply(pd.to_numeric, errors="coerce")
    return table


def _row(line: Line) -> Line:
    right = line["status"] == "measured" and (line["gate"] or {}).get("verdict") in BELIEVED
    status = "wrong" if line["status"] == "measured" and not right else line["status"]
    return {**line, "status": status} | ({} if right else dict.fromkeys(COUNTS))


def _uncounted(name: str) -> Line:
    group, _, peer = name.rpartition("/")
    return {"id": name, "group": group, "peer": peer, "status": "missing", "message": "planned, and not counted"}


def compared(before: Run, after: Run, margin: float) -> Table:
    """One row a count of the earlier run: more, fewer or the same now, instructions within `margin` and the others exactly.

    What the later run did not count is there as "gone", unless that run counted nothing whatever: then there are no rows.
    """
    here, there = (counts(run).set_index("id") for run in (before, after))
    rows: list[Line] = []
    for name, was in here.iterrows() if len(there) else ():
        for count in COUNTS:
            now: Any = there[count].get(name)
            if pd.notna(was[count]):
                row = {"id": name, "count": count, "before": was[count], "after": now}
                rows.append(row | _change(was[count], now, margin if count == "instructions" else 0.0))
    return pd.DataFrame(rows, columns=COMPARED)


def _change(before: float, after: Any, margin: float) -> Line:
    if after is None or pd.isna(after):
        return {"verdict": "gone"}
    word = "more" if after > before * (1 + margin) else "fewer" if after * (1 + margin) < before else "same"
    return {"ratio": after / before if before else None, "verdict": word}
