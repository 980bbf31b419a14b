"""Everything a report says of a run, computed once: the tables that page, Markdown and CSV are three faces of."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from reports import proof, speeds, tables
from reports.compare import Compared
from reports.folders import Line, Run
from reports.tables import Table


@dataclass(frozen=True)
class Findings:
    """The tables of one run, and of the run it is held against, if any."""

    run: Run
    against: Compared | None = None

    @cached_property
    def claims(self) -> Table:
        """The catalogue."""
        return tables.claims(self.run)

    @cached_property
    def checks(self) -> Table:
        """Every planned check and its verdict."""
        return tables.checks(self.run)

    @cached_property
    def matrix(self) -> Table:
        """Claim × (implementation, dtype, device)."""
        return tables.matrix(self.checks, self.claims)

    @cached_property
    def broken(self) -> list[Line]:
        """One entry a broken (claim, implementation)."""
        return tables.broken(self.checks)

    @cached_property
    def missing(self) -> Table:
        """Planned checks without a verdict."""
        return tables.missing(self.checks)

    @cached_property
    def refuted(self) -> list[Line]:
        """The article's claims that mathematics refutes."""
        return tables.refuted(self.checks, self.claims)

    @cached_property
    def headroom(self) -> Table:
        """How near each claim's worst error came to its budget."""
        return tables.headroom(self.checks)

    @cached_property
    def effort(self) -> Table:
        """Examples and comparisons, claim by claim."""
        return tables.effort(self.checks)

    @cached_property
    def timed(self) -> Table:
        """Every planned or timed cell."""
        return speeds.cells(self.run)

    @cached_property
    def ratios(self) -> Table:
        """Every peer against its baseline."""
        return speeds.ratios(self.run, self.timed)

    @cached_property
    def by_peer(self) -> Table:
        """Every peer against its baseline, over all workloads."""
        return speeds.by_peer(self.ratios)

    @cached_property
    def beside_the_best(self) -> Table:
        """What is named first beside the fastest of the others, workload by workload."""
        return speeds.beside_the_best(self.timed, self.ratios)

    @cached_property
    def growth(self) -> Table:
        """Exponents of time and memory."""
        return speeds.growth(self.run, self.timed)

    @cached_property
    def roofs(self) -> Table:
        """The machine's limits."""
        return speeds.roofs(self.run)

    @cached_property
    def controls(self) -> Table:
        """The baseline against itself."""
        return speeds.controls(self.run)

    @cached_property
    def drift(self) -> Table:
        """Medians of processes over time."""
        return speeds.drift(self.run)

    @cached_property
    def counted(self) -> Table:
        """Every planned or counted cell."""
        return speeds.counts(self.run)

    @cached_property
    def costs(self) -> Table:
        """What the suite itself costs."""
        return speeds.costs(self.run)

    @property
    def trust(self) -> Line | None:
        """What the run says of its own timings."""
        return speeds.trust(self.run)

    @property
    def done(self) -> int:
        """How many checks have a verdict."""
        return len(self.checks) - len(self.missing)

    @property
    def verified(self) -> int:
        """How many checks say something of an implementation: not those of steps it does not offer."""
        return int((~self.checks["verdict"].isin(["MISSING", "UNSUPPORTED"])).sum())

    @property
    def untimed(self) -> int:
        """How many planned cells were not measured."""
        return int((self.timed["status"] == "missing").sum())

    @property
    def not_installed(self) -> Table:
        """Peers that are not installed here, each with what would install it and how many cells it leaves open."""
        both = pd.concat(
            [table.loc[table["status"] == "not installed", ["peer", "message"]] for table in (self.timed, self.counted)]
        )
        return both.assign(cells=1).groupby(["peer", "message"], sort=False, as_index=False).sum()

    @property
    def uncounted(self) -> int:
        """How many cells were to be counted, and were not."""
        return int((self.counted["status"] == "missing").sum())

    @property
    def only_timed(self) -> bool:
        """Whether this is a run of the benchmark alone, times or counts: nothing was to be verified."""
        return self.checks.empty and len(self.timed) + len(self.counted) > 0

    @property
    def wrong(self) -> int:
        """How many cells gave a result outside the oracle's budget, or raised, crashed or hung in place of one."""
        return sum(int(table["status"].isin(["wrong", "failed"]).sum()) for table in (self.timed, self.counted))

    @property
    def broken_claims(self) -> list[str]:
        """The claims that some implementation breaks."""
        return list(dict.fromkeys(entry["claim"] for entry in self.broken))

    @property
    def never_run(self) -> list[str]:
        """Claims of the catalogue, studies apart, that no check of this run is about."""
        ran = set(self.checks.loc[self.checks["verdict"] != "MISSING", "claim"])
        return [claim for claim, kind in self.claims["kind"].items() if kind != "study" and claim not in ran]

    def tables(self) -> dict[str, Table]:
        """The tables that are written as files, by name."""
        found: dict[str, Table] = {
            "checks": self.checks,
            "matrix": self._flat_matrix(),
            "missing": self.missing,
            "headroom": self.headroom,
            "effort": self.effort,
            "conventions": tables.conventions(self.run),
            "cells": self.timed,
            "ratios": self.ratios,
            "growth": self.growth.drop(columns=["lengths", "values"]),
            "roofs": self.roofs,
            "controls": self.controls,
            "drift": self.drift,
            "costs": self.costs,
            "counters": self.counted,
        }
        if "score" in self.run.extras:
            found["detection"] = proof.entries(self.run.extras["score"])
        if self.against is not None:
            found |= {"changed_verdicts": self.against.verdicts, "changed_timings": self.against.timings}
            found["changed_counters"] = self.against.recounted
        return {name: table for name, table in found.items() if len(table)}

    def _flat_matrix(self) -> Table:
        flat: Any = self.matrix.copy().rename_axis("claim")
        flat.columns = [" ".join(column) for column in flat.columns]
        return flat.reset_index()

    def environments(self) -> Table:
        """One row a property of the machine or a version, one column a part of the run."""
        columns = {str(place.get("run", self.run.id)): _flat(place) for place in self.run.environments}
        return pd.DataFrame(columns).drop(index="run", errors="ignore").fillna("")

    def plan(self) -> dict[str, Any]:
        """What the run was asked to do."""
        told = {name: value for name, value in self.run.manifest.items() if name not in NOT_SHOWN}
        return {"planned checks": len(self.run.planned), **_flat(told)}


NOT_SHOWN = ("claims", "planned", "follows", "bench_planned", "counters_planned", "environment", "environments")


def _flat(values: Line, before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name} ")
        else:
            found[f"{before}{name}"] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found
