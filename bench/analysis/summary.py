"""From the measurements of a run to its other lines: a pure function, repeated whenever processes were added."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.analysis.roofline import share
from bench.analysis.statistics import ODD_CONTROLS, Interval, distrust, log_ratios, margin_of, odd, student, verdict
from bench.peers.table import AGAIN
from bench.workloads import Workload
from reports.bench_records import Cell, Comparison, Control, Cost, Gate, Process, Roof, Timed, Trust

MOST_DISTURBED = 0.05  # of the samples of a group: the medians hardly see fewer
WORST_FIRST = ("wrong", "failed", "not installed", "not offered", "measured")


@dataclass(frozen=True)
class Group:
    """Peers that are timed together: what is planned of them."""

    workload: Workload
    dtype: str
    device: str
    threads: int
    peers: tuple[str, ...]  # without the control
    baseline: str

    @property
    def id(self) -> str:
        """Its name in all files."""
        return f"{self.workload.name}/{self.dtype}/{self.device}/{self.threads}t"

    @property
    def entered(self) -> tuple[str, ...]:
        """All that are timed: the peers, and the baseline once more."""
        return (*self.peers, self.baseline + AGAIN)

    def cell(self, peer: str) -> str:
        """The id of one peer's cell."""
        return f"{self.id}/{peer}"

    @property
    def fields(self) -> dict[str, Any]:
        """What a line of this group says of it."""
        workload = {"workload": self.workload.name, "step": self.workload.step, "sizes": self.workload.sizes}
        return {"group": self.id, **workload, "dtype": self.dtype, "device": self.device, "threads": self.threads}


@dataclass(frozen=True)
class Summary:
    """All derived lines but growth and roofs, and what the suite itself costs."""

    cells: list[Cell]
    comparisons: list[Comparison]
    controls: list[Control]
    trust: Trust
    costs: list[Cost] = field(default_factory=list)


def summarise(groups: Sequence[Group], processes: Sequence[Process], roofs: Sequence[Roof], margin: float | None) -> Summary:
    """What the measurements say of each planned group."""
    of_group: dict[str, list[Process]] = defaultdict(list)
    for process in processes:
        of_group[process.group].append(process)
    controls = [control_of(group, of_group[group.id], margin) for group in groups]
    trust = trust_of(controls, processes)
    cells, comparisons = [], []
    for group, control in zip(groups, controls, strict=True):
        mine = of_group[group.id]
        cells += [cell_of(group, peer, mine, roofs) for peer in group.peers]
        comparisons += comparisons_of(group, mine, control, trust, margin)
    return Summary(cells, comparisons, controls, trust)


def cell_of(group: Group, peer: str, processes: Sequence[Process], roofs: Sequence[Roof]) -> Cell:
    """One peer's cost over all processes; a wrong output or a failure in any of them takes the speed away."""
    timed = _of_peer(processes, peer)
    worst = min(timed, key=lambda t: WORST_FIRST.index(t.status), default=None)
    if worst is None:
        worst = next(iter(_of_peer(processes, peer, missing=True)), Timed(peer, "missing", "the time limit came before it"))
    flops, traffic = group.workload.flops, group.workload.bytes(group.dtype)
    cell = Cell(
        id=group.cell(peer),
        peer=peer,
        **group.fields,
        status=worst.status,
        message=worst.message,
        really=next((t.really for t in timed if t.really), ""),
        gate=_worst_gate(timed),
        processes=len(timed),
        rounds=0,
        flops=flops,
        bytes=traffic,
        tokens=group.workload.tokens,
    )
    if worst.status != "measured":
        return cell
    time = student([np.log(t.samples) for t in timed])
    seconds = time.middle * 1e-9
    roof = share(roofs, flops, traffic, group.dtype, group.threads, time.middle)
    return replace(
        cell,
        rounds=sum(len(t.samples) for t in timed),
        median_ns=time.middle,
        low_ns=time.low,
        high_ns=time.high,
        min_ns=min(min(t.samples) for t in timed),
        first_call_ns=_median(t.first_call_ns for t in timed),
        peak_bytes=_median(t.peak_bytes for t in timed),
        flops_per_s=flops / seconds if flops else None,
        bytes_per_s=traffic / seconds,
        tokens_per_s=group.workload.tokens / seconds if group.workload.tokens else None,
        roof_share=None if roof is None else roof.share,
        roof_bound="" if roof is None else roof.bound,
        above_roof=roof is not None and roof.above,
    )


def control_of(group: Group, processes: Sequence[Process], margin: float | None) -> Control:
    """The baseline against itself."""
    ratios = _paired(processes, group.baseline + AGAIN, group.baseline)
    if not ratios:
        return Control(
            group.id, group.id, group.baseline, trusted=False, message=f"the baseline {group.baseline} has no speed here"
        )
    interval = student(ratios)
    message = distrust(interval, margin_of(group.device, None, margin)) or disturbance(processes)
    itself = {"reach": interval.reach, "contains_one": interval.contains_one, **_measured(ratios, interval)}
    return Control(group.id, group.id, group.baseline, not message, message, **itself)


def disturbance(processes: Sequence[Process]) -> str:
    """Why a group is untrusted whose peers were timed beside each other's threads; "" if few samples were."""
    samples = sum(len(timed.samples) for process in processes for timed in process.timed)
    beside = sum(sum(process.disturbed.values()) for process in processes)
    few = beside <= MOST_DISTURBED * samples
    return "" if few else f"{beside} of {samples} samples were begun while threads of another peer still ran"


def trust_of(controls: Sequence[Control], processes: Sequence[Process]) -> Trust:
    """Whether so many controls miss 1 that no interval of this run is trusted."""
    known = [control for control in controls if control.contains_one is not None]
    containing = sum(bool(control.contains_one) for control in known)
    p_value = odd(containing, len(known)) if known else None
    trusted = p_value is not None and p_value >= ODD_CONTROLS
    doubt = "no control has an interval yet" if p_value is None else f"{len(known) - containing} controls miss 1"
    starts = [process.started for process in processes]
    return Trust(
        id="trust",
        trusted=trusted,
        message="" if trusted else doubt,
        controls=len(known),
        containing_one=containing,
        p_value=p_value,
        noise_floor=_median(control.reach for control in known),
        pressure=_median(reading for process in processes for reading in process.load.get("pressure", [])),
        load=_median(reading for process in processes for reading in process.load.get("load", [])),
        first=min(starts, default=None),
        last=max(starts, default=None),
        seconds=round(sum(process.seconds for process in processes), 3),
    )


def comparisons_of(
    group: Group, processes: Sequence[Process], control: Control, trust: Trust, margin: float | None
) -> list[Comparison]:
    """Every other peer against the baseline."""
    itself = None if control.ratio is None else Interval(control.ratio, control.low, control.high)
    width = margin_of(group.device, itself, margin)
    trusted = control.trusted and trust.trusted
    lines = []
    for peer in group.peers:
        if peer == group.baseline:
            continue
        common: dict[str, Any] = {"id": group.cell(peer), "peer": peer, "baseline": group.baseline, "margin": width, **group.fields}
        ratios = _paired(processes, peer, group.baseline)
        if not ratios:
            without = peer if not _all_measured(processes, peer) else group.baseline
            lines.append(Comparison(**common, verdict="", message=f"{without} has no speed here"))
            continue
        interval = student(ratios)
        minima = _ratio_of_minima(processes, peer, group.baseline)
        line = Comparison(
            **common,
            **_measured(ratios, interval),
            verdict=verdict(interval, width, trusted=trusted),
            message="" if trusted else control.message or trust.message,
            ratio_of_minima=minima,
            minima_disagree=_disagree(minima, interval, width),
            process_ratios=[float(np.exp(np.median(rounds))) for rounds in ratios],
        )
        lines.append(line)
    return lines


def unresolved(summary: Summary) -> set[str]:
    """The groups in which another process may still decide something."""
    groups = {line.group for line in summary.comparisons if line.verdict in {"unresolved", "untrusted"}}
    return groups | {control.group for control in summary.controls if control.ratio is not None and control.message}


def _of_peer(processes: Sequence[Process], peer: str, *, missing: bool = False) -> list[Timed]:
    """What is known of a peer, from processes that had time for it; or, where `missing`, from those that had none."""
    timed = (timed for process in processes for timed in process.timed if timed.peer == peer)
    return [each for each in timed if (each.status == "missing") == missing]


def _all_measured(processes: Sequence[Process], peer: str) -> bool:
    timed = _of_peer(processes, peer)
    return bool(timed) and all(t.status == "measured" for t in timed)


def _paired(processes: Sequence[Process], peer: str, baseline: str) -> list[np.ndarray]:
    """The log-ratios of each process, round by round; none at all when either was ever wrong or failed."""
    if not (_all_measured(processes, peer) and _all_measured(processes, baseline)):
        return []
    both = ((_of_peer([process], peer), _of_peer([process], baseline)) for process in processes)
    return [log_ratios(one[0].samples, other[0].samples) for one, other in both if one and other]


def _measured(ratios: Sequence[np.ndarray], interval: Interval) -> dict[str, Any]:
    counts = {"processes": len(ratios), "rounds": sum(map(len, ratios))}
    return {"ratio": interval.middle, "low": interval.low, "high": interval.high, **counts}


def _ratio_of_minima(processes: Sequence[Process], peer: str, baseline: str) -> float:
    one, other = (min(min(t.samples) for t in _of_peer(processes, name)) for name in (peer, baseline))
    return one / other


def _disagree(minima: float, interval: Interval, margin: float) -> bool:
    """Whether the quickest samples give another verdict than the interval."""
    if interval.low is None or interval.high is None:
        return False
    outside = not interval.low <= minima <= interval.high
    return outside and verdict(Interval(minima, minima, minima), margin) != verdict(interval, margin)


def _worst_gate(timed: Sequence[Timed]) -> Gate | None:
    gates = [t.gate for t in timed if t.gate is not None]
    return max(gates, key=lambda gate: (gate.verdict != "PASS", gate.share or 0.0), default=None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
