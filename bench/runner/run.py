"""A whole benchmark run: plan, fresh processes one after another, and what they say together.

Pass p gives every group its p-th process, so that the processes of one group are spread over the whole run. The first goes from
the cheapest workload to the dearest, and skips peers that do not fit into the time limit. After the stated number of passes, the
time that is left goes to undecided groups. Every finished group of every process is on disk at once; a run that was killed goes on
where it was when it is started again on the same folder.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.analysis import growth, roofline
from bench.analysis.summary import Group, Summary, summarise, unresolved
from bench.peers.table import AGAIN, DEFAULT_BASELINE, USUAL, check_names, could
from bench.runner import machine, suite_cost
from bench.runner.records import enter, records, write
from bench.runner.subprocesses import SILENCE, Died, NotJudged, Silent, lines_of
from bench.workloads import ITEM, STEPS, select
from reports.bench_records import Cost, Process, Roof, Timed, read

MOST_PROCESSES = 30
LEAST_SILENCE = 120.0  # seconds that a call may take; with a longer time limit a quarter of it
GRACE = 2.0  # the first pass may take so many time limits: a cell measured once is worth more than a missing one
ROOF = "roof"  # what a process says it is at while it measures the machine's limits
Progress = Callable[[str, int, int], None]  # what is being done, groups done, groups planned


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do; a run that is continued must be asked the same."""

    workloads: tuple[str, ...] = ("short",)
    peers: tuple[str, ...] = USUAL
    baseline: str = DEFAULT_BASELINE
    dtypes: tuple[str, ...] = ("float32",)
    device: str = "cpu"
    threads: tuple[int, ...] = field(default_factory=lambda: (machine.cores(),))
    seed: int = 0
    processes: int = 5
    margin: float | None = None
    as_step: str | None = None  # what a user's own function among the peers computes; a class says so itself
    adapt: bool = True  # whether time that is left goes to undecided groups
    suite: bool = False  # whether the suite's own cost is measured too

    def __post_init__(self) -> None:
        check_names(self.peers)
        check_names([self.baseline], "--baseline")
        if self.as_step is not None and self.as_step not in STEPS:
            raise ValueError(f"--as: expected one of {', '.join(STEPS)}, got {self.as_step!r}")
        for dtype in self.dtypes:
            if dtype not in ITEM:
                raise ValueError(f"--dtype: expected one of {', '.join(ITEM)}, got {dtype!r}")
        if self.processes < 2:
            raise ValueError(f"--processes: expected at least 2 (one process has no interval), got {self.processes}")
        if min(self.threads) < 1:
            raise ValueError(f"--threads: expected at least 1, got {min(self.threads)}")
        _check_device(self.device)

    def groups(self) -> list[Group]:
        """The groups that this asks for. Raises ValueError for a workload that does not exist."""
        return [
            Group(workload, dtype, self.device, threads, peers, self._baseline(peers))
            for threads in self.threads
            for dtype in self.dtypes
            for workload in select(self.workloads)
            if (peers := self._peers(workload.step, dtype))
        ]

    def _peers(self, step: str, dtype: str) -> tuple[str, ...]:
        asked = dict.fromkeys((*self.peers, self.baseline))
        return tuple(peer for peer in asked if could(peer, step, self.device, dtype, self.as_step))

    def _baseline(self, peers: Sequence[str]) -> str:
        return next((name for name in (self.baseline, "optimized") if name in peers), peers[0])


def run(
    folder: Path,
    workloads: str | Sequence[str] = ("short",),
    time_limit_s: float = 60.0,
    *,
    progress: Progress | None = None,
    failures: bool = False,
    **settings: Any,
) -> Summary:
    """Measure for about `time_limit_s` seconds into `folder`, new, of a verification, or of a run like this that was broken off.

    With `failures` what an implementation costs that fails is measured too, which takes a minute or two besides.
    Raises ValueError for settings that make no sense or are not those of the run in the folder.
    """
    names = (workloads,) if isinstance(workloads, str) else tuple(workloads)
    asked = Settings(workloads=names, **settings)
    return Run(folder, asked, time_limit_s, progress or (lambda *_: None), failures=failures).go()


class Run:
    """One run in the making."""

    def __init__(
        self, folder: Path, settings: Settings, time_limit_s: float, progress: Progress, *, failures: bool = False
    ) -> None:
        self.folder, self.settings, self.progress, self.failures = folder, settings, progress, failures
        self.costs: list[Cost] = []
        self.groups = settings.groups()
        self.time_limit_s, self.started = time_limit_s, time.time()
        self.beside_groups = time_limit_s / settings.processes / 4  # seconds a pass spends on starting a process and on the limits
        self.absent: dict[str, dict[str, tuple[str, str]]] = {}  # group → peer → status and message
        self.silence = min(SILENCE, max(LEAST_SILENCE, time_limit_s / 4))
        planned = [group.cell(peer) for group in self.groups for peer in group.peers]
        enter(folder, "bench", asdict(settings), planned, device=settings.device, seed=settings.seed)
        self.processes: list[Process] = records(folder, Process)
        self.roofs: list[Roof] = records(folder, Roof)

    def go(self) -> Summary:
        """Every pass, then the undecided groups, then the derived lines."""
        try:
            for number in range(self.settings.processes):
                self._pass(self.groups, number)
            if self.settings.adapt:
                self._decide()
            measures = [suite_cost.measure] * self.settings.suite + [suite_cost.failures] * self.failures
            for cost in chain.from_iterable(measure() for measure in measures):
                write(self.folder, cost)
                self.costs.append(cost)
                self._say(f"the suite itself: {cost.piece} {cost.name}")
        finally:
            summary = self.summarise()
        return summary

    def summarise(self) -> Summary:
        """Write the lines that follow from the measurements so far."""
        summary = summarise(self.groups, self.processes, self.roofs, self.settings.margin)
        derived = [*summary.cells, *summary.comparisons, *summary.controls, *growth.growths(summary.cells, self.processes)]
        for line in (*derived, *self.roofs, summary.trust):
            write(self.folder, line)
        return replace(summary, costs=self.costs)

    @property
    def left(self) -> float:
        """Seconds of the time limit."""
        return self.started + self.time_limit_s - time.time()

    def _decide(self) -> None:
        for number in range(self.settings.processes, MOST_PROCESSES):
            summary = summarise(self.groups, self.processes, self.roofs, self.settings.margin)
            undecided = unresolved(summary)
            if self.left <= 0 or not undecided:
                return
            self._pass([group for group in self.groups if group.id in undecided], number)

    def _pass(self, groups: Sequence[Group], number: int) -> None:
        """One process for each of these groups that has none of this number yet; one worker for all of the same threads."""
        before, began = len(self.processes), time.time()
        done = {process.group for process in self.processes if process.process == number and not _without(process)}
        todo = [group for group in groups if group.id not in done]
        until = self.started + self.time_limit_s * (GRACE if number == 0 else 1.0)
        rng = np.random.default_rng([self.settings.seed, number])
        for threads in self.settings.threads:
            batch = [group for group in todo if group.threads == threads]
            queue = [batch[i] for i in rng.permutation(len(batch))] if number else sorted(batch, key=_size)
            while queue and time.time() < until:
                queue = self._worker(queue, number, until)
        if len(self.processes) > before:
            self.beside_groups = time.time() - began - sum(process.seconds for process in self.processes[before:])

    def _worker(self, queue: list[Group], number: int, until: float) -> list[Group]:
        """Have one fresh process measure these groups; what is left to do if it died on the way."""
        left = {group.id: group for group in queue}
        try:
            for line in lines_of(self._order(queue, number, until), self.silence):
                if "process" in line:
                    left.pop(line["process"]["group"])
                self._take(line)
        except Died as death:
            if death.group == ROOF:
                return []
            if death.group in left:
                slow = isinstance(death, Silent) and self.silence < SILENCE
                hint = f": one call may take a quarter of the time limit, and {LEAST_SILENCE:.0f} s in any case" if slow else ""
                status = "missing" if slow or isinstance(death, NotJudged) else "failed"
                self._miss(death.group, death.peer, status, death.message + hint)
            elif len(left) == len(queue):  # no peer's fault and nothing done: it would die for ever
                raise RuntimeError(f"python -m bench.runner.worker: {death.message}") from death
            return list(left.values())
        return []

    def _take(self, line: dict[str, Any]) -> None:
        if "process" in line:
            process = read(line["process"], Process)
            write(self.folder, process)
            self.processes = [*(each for each in self.processes if each.id != process.id), process]
            for timed in _without(process):
                self._miss(process.group, timed.peer, timed.status, timed.message)
        elif "roofs" in line:
            self.roofs = roofline.best_of([*self.roofs, *(read(fields, Roof) for fields in line["roofs"])])
        elif "at" in line:
            self._say(" ".join(line["at"]).strip())

    def _say(self, what: str) -> None:
        planned = len(self.groups) * self.settings.processes
        self.progress(what, min(len(self.processes), planned), planned)

    def _miss(self, group: str, peer: str, status: str, message: str) -> None:
        """A peer that could not be timed in one process of this run is not tried in the next."""
        self.absent.setdefault(group, {})[peer] = (status, message)

    def _order(self, groups: Sequence[Group], number: int, until: float) -> dict[str, Any]:
        settings = self.settings
        known = {d: asdict(t.gate) for p in self.processes for t in p.timed if t.gate for d in t.gate.outputs}
        return {
            "process": number,
            "seed": settings.seed,
            "order_seed": settings.seed + 1,
            "threads": groups[0].threads,
            "device": settings.device,
            "until": until,
            "known": known,
            "roofs": roofline.wanted([group.workload for group in groups], settings.dtypes),
            "jobs": [self._job(group, number) for group in groups],
        }

    def _job(self, group: Group, number: int) -> dict[str, Any]:
        return {
            "group": group.fields,
            "peers": list(group.entered),
            "seconds": self._seconds(number),
            "last": [group.baseline, group.baseline + AGAIN],
            "absent": self.absent.get(group.id, {}),
        }

    def _seconds(self, number: int) -> float:
        """What a group may have of the time left, its set-up included; three rounds there are in any case."""
        passes = max(1, self.settings.processes - number)
        return max(0.0, (self.left / passes - self.beside_groups) / len(self.groups))


def _size(group: Group) -> float:
    """What the first pass is ordered by, so that what it has no time for is as little as can be.

    Generation counts as for a peer without a cache: every token computes those before it again.
    """
    tokens = group.workload.sizes["length"] if group.workload.step == "generation" else 1
    return group.workload.flops * (tokens + 1) / 2 + group.workload.bytes(group.dtype)


def _without(process: Process) -> list[Timed]:
    """The peers that there was no time for."""
    return [timed for timed in process.timed if timed.status == "missing"]


def _check_device(device: str) -> None:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in {"cpu", "cuda"}:
        raise ValueError(f"--device: expected cpu or cuda, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: expected one that is here, got {device!r}, and torch sees no GPU")
