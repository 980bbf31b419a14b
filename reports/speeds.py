"""Tables of what was timed and counted: all planned cells, ratios with intervals, growth, the machine's limits, trust."""

from collections import Counter
from typing import Any

import pandas as pd

from reports import words
from reports.folders import Line, Run
from reports.outcomes import COMPARED
from reports.tables import Table

BELIEVED = ("PASS", "SUSPECT")  # a speed is shown only where the outputs of the timed calls were judged so
NAMED = ("id", "group", "workload", "step", "peer", "dtype", "device", "threads")
MEASURED = (
    *("median_ns", "low_ns", "high_ns", "min_ns", "first_call_ns", "peak_bytes"),
    *("flops_per_s", "bytes_per_s", "tokens_per_s", "roof_share", "processes", "rounds"),
)

OTHERS = 2  # the last `precedence`
COUNTS = ("instructions", "operators", "allocated_bytes")
RECOUNTED = ["id", "count", "before", "after", "ratio", "verdict"]


def lines(run: Run, what: str) -> list[Line]:
    """The bench lines of one kind."""
    return [line for line in run.bench if line["what"] == what]


def cells(run: Run) -> Table:
    """One row a planned or timed cell. What was not timed is "missing"; whose outputs are wrong has no speed at all."""
    done = {line["id"]: line for line in lines(run, "cell")}
    planned = [str(cell) for cell in run.manifest.get("bench_planned") or []]
    rows = [_cell(done[name]) if name in done else _unmeasured(name) for name in dict.fromkeys([*planned, *done])]
    texts = _names("status gate claim message really roof_bound above_roof")
    numbers = [*MEASURED, "flops", "bytes"]
    return _numeric(pd.DataFrame(rows, columns=[*NAMED, *texts, *numbers]), numbers)


def _cell(line: Line) -> Line:
    gate = line.get("gate") or {}
    told = {**line, "gate": str(gate.get("verdict") or ""), "claim": str(gate.get("claim") or "")}
    if told["gate"] in BELIEVED and line["status"] == "measured":
        return told
    nothing: Line = dict.fromkeys(MEASURED)
    if line["status"] == "measured":  # timed, and not seen to be right: that is no speed
        told["status"] = "wrong" if told["gate"] else "unchecked"
    return {**told, **nothing, "message": line["message"] or str(gate.get("message") or "")}


def _unmeasured(name: str) -> Line:
    parts = name.split("/")
    known = (
        dict(zip(["workload", "dtype", "device", "threads", "peer"], parts, strict=True)) if len(parts) == 5 else {"workload": name}
    )
    known["threads"] = known.get("threads", "").removesuffix("t")
    return {"id": name, "group": "/".join(parts[:-1]), "status": "missing", "message": "planned, and not measured", **known}


def ratios(run: Run, timed: Table) -> Table:
    """One row a comparison whose two cells both have a speed: the peer's time over the baseline's, with its interval."""
    with_speed = set(timed.loc[timed["median_ns"].notna(), "id"])
    wanted = [line for line in lines(run, "comparison") if _both(line, with_speed)]
    numbers = _names("ratio low high margin ratio_of_minima")
    columns = _names("id group workload peer baseline dtype device threads verdict message minima_disagree")
    table = _numeric(pd.DataFrame(wanted, columns=[*columns, *numbers]), numbers).dropna(subset=["ratio", "low", "high"])
    order = {name: place for place, name in enumerate(timed["id"])}
    return table.sort_values("id", key=lambda ids: ids.map(order), ignore_index=True)


def _both(line: Line, with_speed: set[str]) -> bool:
    group: str = line["group"]
    return f"{group}/{line['peer']}" in with_speed and f"{group}/{line['baseline']}" in with_speed


def by_peer(compared: Table) -> Table:
    """Each peer against the baseline over all its workloads: how many are faster, slower, the same, and the median ratio.

    A user's own come first, then `optimized`, then who was timed on most workloads.
    """
    rows = []
    for (baseline, peer), group in compared.groupby(["baseline", "peer"], sort=True):
        told = Counter(group["verdict"])
        verdicts = {verdict: told.get(verdict, 0) for verdict in COMPARED}
        middle = {"median_ratio": group["ratio"].median(), "least": group["low"].min(), "most": group["high"].max()}
        rows.append({"peer": peer, "baseline": baseline, "workloads": len(group), **verdicts, **middle})
    rows.sort(key=lambda row: (precedence(row["peer"]), -row["workloads"]))
    return pd.DataFrame(rows, columns=["peer", "baseline", "workloads", *COMPARED, "median_ratio", "least", "most"])


def beside_the_best(timed: Table, compared: Table) -> Table:
    """In each group what is named first (`precedence`), in its fastest form, beside the fastest of the others: their time over its.

    The oracle is not one of them. With the interval of the ratio where the first is the baseline; of medians alone otherwise.
    """
    rows: list[Line] = []
    believed = timed.loc[timed["median_ns"].notna() & (timed["peer"] != "reference")]
    for group, cells in believed.groupby("group", sort=False):
        ranks = cells["peer"].map(precedence)
        if ranks.min() == OTHERS or ranks.max() != OTHERS:
            continue
        own, best = (cells.loc[cells.loc[ranks == rank, "median_ns"].idxmin()] for rank in (ranks.min(), OTHERS))
        row = {**own[[*NAMED, "median_ns", "roof_share"]], "best": best["peer"], "ratio": best["median_ns"] / own["median_ns"]}
        paired = compared.loc[compared["id"].eq(best["id"]) & compared["baseline"].eq(own["peer"])]
        rows.append({**row, "group": group, **(paired.iloc[0][["ratio", "low", "high"]] if len(paired) else {})})
    return pd.DataFrame(rows, columns=[*NAMED, *_names("median_ns roof_share best ratio low high")])


def precedence(peer: str) -> int:
    """Which peers are named first: a user's own, named by module or file (`kernels:flash`), then `optimized`, in any tier."""
    return 0 if ":" in peer else 1 if peer.partition(".")[0] == "optimized" else OTHERS


def growth(run: Run, timed: Table) -> Table:
    """How time and memory of each peer that is right at every length grow: the fitted exponent, its interval, local ones."""
    sort = ["step", "peer", "dtype", "device"]
    wrong = set(timed.loc[timed["status"].isin(["wrong", "unchecked"]), sort].itertuples(index=False, name=None))
    columns = _names("family peer dtype device quantity axis first last exponent low high residual local lengths values")
    rows = []
    for line in lines(run, "growth"):
        if tuple(line.get(name) for name in sort) in wrong:
            continue
        fitted: Line = line["fitted"] or {}
        local = ", ".join(
            f"{step['first']}→{step['last']}: {step['exponent']:.2f}" for step in line["local"] if step["exponent"] is not None
        )
        rows.append({**line, **fitted, "local": local})
    return pd.DataFrame(rows, columns=columns).sort_values(["family", "quantity", "dtype", "device", "peer"], ignore_index=True)


def roofs(run: Run) -> Table:
    """The machine's limits as this run measured them: products in flop/s, reading and copying in bytes/s."""
    columns = _names("limit dtype device threads size rate median_rate")
    rows = [{**line, "size": _size(line["size"])} for line in lines(run, "roof")]
    return pd.DataFrame(rows, columns=columns).sort_values(["device", "limit", "dtype", "threads", "rate"], ignore_index=True)


def _size(sizes: Line) -> str:
    return words.size(sizes["bytes"]) if "bytes" in sizes else " × ".join(map(str, sizes.values()))


def controls(run: Run) -> Table:
    """The baseline against itself, group by group."""
    columns = _names("group baseline trusted ratio low high reach contains_one processes rounds message")
    return pd.DataFrame(lines(run, "control"), columns=columns)


def trust(run: Run) -> Line | None:
    """What the run says of its own timings, or None where nothing was timed."""
    return next(iter(lines(run, "trust")), None)


def costs(run: Run) -> Table:
    """What the suite itself costs: a call of the oracle, a verdict of the budget, an example of a claim."""
    return pd.DataFrame(lines(run, "cost"), columns=_names("piece name seconds per_second repeats note"))


def drift(run: Run) -> Table:
    """One row a peer and process: when it ran, and its median time relative to the same peer's over the whole run."""
    rows: list[Line] = []
    for process in lines(run, "process"):
        for timed in process["timed"]:
            if timed["samples"] and timed["status"] == "measured":
                middle = float(pd.Series(timed["samples"]).median())
                rows.append({"group": process["group"], "peer": timed["peer"], "started": process["started"], "median": middle})
    table = pd.DataFrame(rows, columns=["group", "peer", "started", "median"])
    table["relative"] = table["median"] / table.groupby(["group", "peer"])["median"].transform("median")
    table["minutes"] = (table["started"] - table["started"].min()) / 60
    return table.sort_values(["started", "group", "peer"], ignore_index=True)


def by_predecessor(run: Run) -> Table:
    """Does it matter who ran before? Median time of whoever follows a peer, relative to the follower's own in the same process."""
    rows: list[tuple[str | None, float]] = []
    for process in lines(run, "process"):
        before: dict[tuple[int, int], str] = {}  # (round, place) → who comes after that place
        for timed in process["timed"]:
            before |= {(i, place + 1): timed["peer"].removesuffix(" again") for i, place in enumerate(timed["order"])}
        for timed in process["timed"]:
            samples: Any = pd.Series(timed["samples"], dtype=float)
            middle = samples.median()
            followed = zip(samples, enumerate(timed["order"]), strict=False)
            rows += [(before.get((i, place)), sample / middle) for sample, (i, place) in followed]
    table = pd.DataFrame(rows, columns=["peer", "relative"]).dropna()
    return table.groupby("peer", sort=False)["relative"].agg(samples="size", median="median").reset_index()


def load(run: Run) -> Line:
    """What else went on: load and pressure around the processes, samples beside others' threads or taken again, throttling."""
    processes = lines(run, "process")
    return {
        "processes": len(processes),
        "seconds": sum(process["seconds"] for process in processes),
        "samples": sum(len(timed["samples"]) for process in processes for timed in process["timed"]),
        "disturbed": sum(sum(process["disturbed"].values()) for process in processes),
        "repeated": sum(sum(process["repeated"].values()) for process in processes),
        "throttled": sorted({str(process["throttled"]) for process in processes if process["throttled"]}),
        "load": _highest(processes, "load"),
        "pressure": _highest(processes, "pressure"),
    }


def _highest(processes: list[Line], name: str) -> float | None:
    seen = [value for process in processes for value in process["load"].get(name) or [] if value is not None]
    return max(seen, default=None)


def _names(text: str) -> list[str]:
    return text.split()


def _numeric(table: Table, columns: list[str]) -> Table:
    table[columns] = table[columns].apply(pd.to_numeric, errors="coerce")
    return table


# ---- counts: instructions, operators and bytes of one call ----


def counts(run: Run) -> Table:
    """One row a cell that was counted or should have been. What gave a wrong result has no counts at all."""
    done = {line["id"]: line for line in lines(run, "counters")}
    planned = [str(cell) for cell in run.manifest.get("counters_planned") or []]
    rows = [_count(done[name]) if name in done else _uncounted(name) for name in dict.fromkeys([*planned, *done])]
    table = pd.DataFrame(rows, columns=[*NAMED, "status", "message", *COUNTS])
    table[[*COUNTS]] = table[[*COUNTS]].apply(pd.to_numeric, errors="coerce")
    return table


def _count(line: Line) -> Line:
    right = line["status"] == "measured" and (line["gate"] or {}).get("verdict") in BELIEVED
    status = "wrong" if line["status"] == "measured" and not right else line["status"]
    return {**line, "status": status} | ({} if right else dict.fromkeys(COUNTS))


def _uncounted(name: str) -> Line:
    group, _, peer = name.rpartition("/")
    return {"id": name, "group": group, "peer": peer, "status": "missing", "message": "planned, and not counted"}


def recounted(before: Run, after: Run, margin: float) -> Table:
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
    return pd.DataFrame(rows, columns=RECOUNTED)


def _change(before: float, after: Any, margin: float) -> Line:
    if after is None or pd.isna(after):
        return {"verdict": "gone"}
    word = "more" if after > before * (1 + margin) else "fewer" if after * (1 + margin) < before else "same"
    return {"ratio": after / before if before else None, "verdict": word}
