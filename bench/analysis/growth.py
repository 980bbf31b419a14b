"""How cost grows with the length of a sequence: y ∝ n^e between neighbouring lengths, and fitted over a stated range.

One global fit would lie: below some length fixed costs rule, and plain softmax attention then looks like n^1.7. So the local
exponents are shown, and the fit says from where to where it holds: by default from 512 tokens on. Its interval is Student's over
the processes for time; memory, which is the same each time, has none but shows its residual.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from bench.analysis.statistics import CONFIDENCE
from bench.workloads import named
from reports.bench_records import Cell, Exponent, Growth, Process

FIRST_FITTED = 512


def slope(lengths: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """The exponent of the power that fits best, and the root mean square of what it leaves of log y."""
    x, y = np.log(lengths), np.log(values)
    exponent, offset = np.polyfit(x, y, 1)
    return float(exponent), float(np.sqrt(np.mean((y - offset - exponent * x) ** 2)))


def local_exponents(lengths: Sequence[int], values: Sequence[float]) -> list[Exponent]:
    """Between each length and the next."""
    pairs = zip(lengths, lengths[1:], values, values[1:], strict=False)
    return [Exponent(n, m, float(np.log(high / low) / np.log(m / n))) for n, m, low, high in pairs]


def fitted_exponent(
    lengths: Sequence[int], values: Sequence[float], by_process: Sequence[Sequence[float]], first: int = FIRST_FITTED
) -> Exponent | None:
    """Over the lengths from `first` on, of which there must be three; `by_process` are the values of each process apart."""
    inside = [i for i, n in enumerate(lengths) if n >= first]
    if len(inside) < 3:
        return None
    chosen = [lengths[i] for i in inside]
    exponent, residual = slope(chosen, [values[i] for i in inside])
    slopes = [slope(chosen, [row[i] for i in inside])[0] for row in by_process]
    if len(slopes) < 2:
        return Exponent(chosen[0], chosen[-1], exponent, residual=residual)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(slopes) - 1) * stats.sem(slopes))
    middle = float(np.mean(slopes))
    return Exponent(chosen[0], chosen[-1], exponent, middle - reach, middle + reach, residual)


def growths(cells: Iterable[Cell], processes: Iterable[Process]) -> list[Growth]:
    """A line for the time and one for the memory of each peer that was measured at two lengths or more of one family."""
    families: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.status == "measured" and named(cell.workload).definition.axis:
            families[named(cell.workload).family, cell.dtype, cell.device, str(cell.threads), cell.peer].append(cell)
    medians = _medians(processes)
    return [line for members in families.values() if len(members) > 1 for line in _of_family(members, medians)]


def _of_family(members: list[Cell], medians: dict[tuple[str, str], dict[int, float]]) -> list[Growth]:
    family, axis = named(members[0].workload).family, named(members[0].workload).definition.axis
    members = sorted(members, key=lambda cell: cell.sizes[axis])
    per_process = [medians[cell.group, cell.peer] for cell in members]
    common = sorted(set.intersection(*(set(found) for found in per_process)))
    rows = [[found[process] for found in per_process] for process in common]
    lines = []
    for quantity, field, of_processes in (("time", "median_ns", rows), ("memory", "peak_bytes", [])):
        known = [(cell.sizes[axis], value) for cell in members if (value := getattr(cell, field))]
        if len(known) > 1:
            lengths, values = [n for n, _ in known], [value for _, value in known]
            exponents = local_exponents(lengths, values), fitted_exponent(lengths, values, of_processes)
            of = members[0]
            who = of.step, of.peer, of.dtype, of.device, of.threads
            name = f"growth/{family}/{of.dtype}/{of.device}/{of.threads}t/{of.peer}/{quantity}"
            lines.append(Growth(name, family, *who, quantity, axis, lengths, values, *exponents))
    return lines


def _medians(processes: Iterable[Process]) -> dict[tuple[str, str], dict[int, float]]:
    """(group, peer) → process → median of its samples."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for process in processes:
        for timed in process.timed:
            if timed.samples:
                found[process.group, timed.peer][process.process] = float(np.median(timed.samples))
    return found
