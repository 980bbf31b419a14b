"""Each cell's share of the machine's limits.

    least time of a cell = max(flops / product rate, bytes / memory rate)        share = least time / time taken

The product rate is the best of all shapes of the cell's dtype; the memory rate that of the largest working set that is no larger
than the cell's traffic, since less fits a faster cache. A share above 1 is an error of measurement or of a formula.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bench.workloads import Workload
from reports.bench_records import Roof

LARGE = (1024, 1024, 1024)
WORKING_SETS = tuple(2**power for power in range(18, 29, 2))  # 256 KiB … 256 MiB
NOISE = 0.03  # a share above 1 by less is two measurements of the same thing


class Share(NamedTuple):
    """How close a cell is to the limit that binds it."""

    share: float
    bound: str  # "products" or "memory"
    above: bool


def wanted(workloads: Iterable[Workload], dtypes: Sequence[str]) -> dict[str, Any]:
    """What to measure for these workloads, as an order to a worker."""
    shapes = sorted({product for workload in workloads for product in workload.products} | {LARGE})
    return {"products": shapes, "dtypes": list(dtypes), "sets": WORKING_SETS}


def best_of(lines: Iterable[Roof]) -> list[Roof]:
    """Of several passes over one limit the one with the highest rate."""
    best: dict[str, Roof] = {}
    for line in lines:
        if line.id not in best or line.rate > best[line.id].rate:
            best[line.id] = line
    return list(best.values())


def share(roofs: Iterable[Roof], flops: float, traffic: float, dtype: str, threads: int, ns: float) -> Share | None:
    """The share of a cell of so many flops and bytes that took `ns`; None when its limits were not measured."""
    mine = [roof for roof in roofs if roof.threads == threads]
    rates = [roof.rate for roof in mine if roof.limit == "products" and roof.dtype == dtype]
    memory = [roof for roof in mine if roof.limit in {"read", "copy"}]
    if not rates or not memory:
        return None
    sets = [roof.size["bytes"] for roof in memory]
    fitting = max((size for size in sets if size <= traffic), default=min(sets))
    speeds = [roof.rate for roof in memory if roof.size["bytes"] == fitting]
    least = {"products": flops / max(rates), "memory": traffic / max(speeds)}
    bound = max(least, key=lambda name: least[name])
    found = least[bound] / (ns * 1e-9)
    return Share(found, bound, found > 1 + NOISE)
