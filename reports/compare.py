"""One run against another: what verdicts changed, and what became slower, by ratios of ratios to an anchor timed in the same run.

A time measured yesterday and one measured today differ by the machine's mood. So each run divides by its own baseline, timed in
the same rounds, and these ratios are compared:

    log RR = log r_after − log r_before,    its interval by combining the two runs' (Zou & Donner 2008, doi:10.1002/sim.3095)

A slowdown counts when a second, independent run shows it too. Counts, of instructions and the like, are compared as they are; they
decide nothing: more work may be done in less time.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.folders import ReportError, Run, difference, machine
from reports.records import BROKEN, Exit, exit_code
from reports.speeds import cells, ratios, recounted, trust
from reports.tables import COLUMN, Table, checks, claims, matrix

MARGIN = 0.03
VERDICTS = ("slower", "faster", "same", "unresolved", "untrusted", "not comparable", "removed", "new")


@dataclass(frozen=True)
class Compared:
    """What changed from one run to another."""

    before: Run
    after: Run
    margin: float
    machines: str  # how the machine classes differ, in words; "" for the same
    verdicts: Table  # claim, implementation, dtype, device, before, after: where they differ
    timings: Table  # id, peer, baseline, before, after, ratio, low, high, verdict, confirmed
    counters: Table  # id, count, before, after, ratio, verdict

    @property
    def newly_broken(self) -> Table:
        """The claims that hold no longer."""
        return self.verdicts[self.verdicts["after"].isin(BROKEN) & ~self.verdicts["before"].isin(BROKEN)]

    @property
    def no_longer_run(self) -> Table:
        """The checks and cells that were there and are missing now."""
        lost = self.verdicts.loc[self.verdicts["after"].isin(["MISSING"]), "claim"]
        uncounted = self.counters.loc[self.counters["verdict"] == "gone", "id"].drop_duplicates()
        return pd.concat([lost, self.timings.loc[self.timings["verdict"] == "removed", "id"], uncounted])

    @property
    def recounted(self) -> Table:
        """The counts that changed."""
        return self.counters[self.counters["verdict"] != "same"]

    @property
    def slowdowns(self) -> Table:
        """The cells that are slower, confirmed or not."""
        return self.timings[self.timings["verdict"] == "slower"]

    @property
    def exit_code(self) -> Exit:
        """1 for a claim that holds no longer, 3 for a slowdown two runs agree on, 5 for what was there and did not run, else 0."""
        if len(self.newly_broken):
            return Exit.BROKEN
        if self.slowdowns["confirmed"].any():
            return Exit.SLOWER
        return exit_code(broken=False, missing=bool(len(self.no_longer_run)))


def compared(
    before: Run, after: Run, *, again: Run | None = None, margin: float = MARGIN, across_machines: bool = False
) -> Compared:
    """Compare two runs; `again`, a second run of the later code, confirms. Raises ReportError where a comparison would mislead."""
    machines = difference(before, after)
    for one in (after, again):
        if one is not None and machine(before) != machine(one) and not across_machines:
            raise ReportError(
                f"{before.path} and {one.path} ran on different machine classes ({difference(before, one)}); "
                f"to compare all the same: --across-machines"
            )
    if again is not None and again.code != after.code:
        raise ReportError(f"{again.path} should confirm {after.path}, but is a run of other code ({again.code}, not {after.code})")
    if again is not None and again.path.resolve() == after.path.resolve():
        raise ReportError(f"{again.path} cannot confirm itself; expected a second, independent run")
    timings = _timings(before, after, margin)
    if again is not None:
        confirming = _timings(before, again, margin).set_index("id")["verdict"]
        timings["confirmed"] = (timings["verdict"] == "slower") & (timings["id"].map(confirming) == "slower")
    return Compared(before, after, margin, machines, _verdicts(before, after), timings, recounted(before, after, margin))


def _verdicts(before: Run, after: Run) -> Table:
    columns = [matrix(checks(run), claims(run)).stack(COLUMN, future_stack=True) for run in (before, after)]
    table = pd.concat(columns, axis=1, keys=["before", "after"]).fillna("UNPLANNED")
    return table[table["before"] != table["after"]].rename_axis(["claim", *COLUMN]).reset_index()


def _timings(before: Run, after: Run, margin: float) -> Table:
    here, there = (_speeds(run) for run in (before, after))
    believed = all((trust(run) or {"trusted": True})["trusted"] for run in (before, after))
    names = dict.fromkeys([*here, *there])
    rows = [{"id": name, **_ratio_of_ratios(here.get(name), there.get(name), margin, believed=believed)} for name in names]
    columns = ["id", "peer", "baseline", "before", "after", "ratio", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns).assign(confirmed=False)


def _speeds(run: Run) -> dict[str, dict[str, Any]]:
    """Each compared cell's ratio to its baseline, and each other timed cell of the run without one."""
    timed = cells(run)
    table = ratios(run, timed)
    named: dict[str, dict[str, Any]] = {row["id"]: row for row in table.to_dict("records")}
    anchors = set(table["group"] + "/" + table["baseline"])
    others = timed[~timed["id"].isin([*named, *anchors]) & (timed["status"] != "missing")]
    return {**named, **{row["id"]: row for row in others.to_dict("records")}}


def _ratio_of_ratios(here: Any, there: Any, margin: float, *, believed: bool) -> dict[str, Any]:
    known = there or here
    told = {"peer": known.get("peer"), "baseline": known.get("baseline")}
    if here is None or there is None:
        return {**told, "verdict": "new" if here is None else "removed"}
    told |= {"before": here.get("ratio"), "after": there.get("ratio")}
    if "ratio" not in here or "ratio" not in there or here["baseline"] != there["baseline"]:
        return {**told, "verdict": "not comparable"}
    ratio, low, high = _interval(here, there)
    untrusted = not believed or "untrusted" in {here["verdict"], there["verdict"]}
    return {**told, "ratio": ratio, "low": low, "high": high, "verdict": "untrusted" if untrusted else _word(low, high, margin)}


def _interval(here: dict[str, Any], there: dict[str, Any]) -> tuple[float, float, float]:
    """The ratio of the two ratios and its interval, from theirs."""
    r1, l1, u1 = (math.log(here[name]) for name in ("ratio", "low", "high"))
    r2, l2, u2 = (math.log(there[name]) for name in ("ratio", "low", "high"))
    middle = r2 - r1
    low, high = middle - math.hypot(r2 - l2, u1 - r1), middle + math.hypot(u2 - r2, r1 - l1)
    return math.exp(middle), math.exp(low), math.exp(high)


def _word(low: float, high: float, margin: float) -> str:
    if low > 1 + margin:
        return "slower"
    if high < 1 / (1 + margin):
        return "faster"
    return "same" if low > 1 / (1 + margin) and high < 1 + margin else "unresolved"
