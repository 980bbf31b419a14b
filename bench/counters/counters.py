"""A whole run of counts in place of times: instructions, torch operators and allocated bytes of one call, group by group.

A count hardly depends on the load of the machine, so one is enough. How equal two runs of the same code are, on 2 cores at a
load of 7 (softmax.8x8x64@b=1, attention.64 and encoder.8x64@b=1+n=16 on optimized, torch.eager and reference, 2026):

* operators and bytes are equal;
* so were the instructions of two runs one after the other, in all 9 cells;
* with other peers in the process, another environment, or another valgrind beside it, the heap lies differently and malloc searches
  longer or shorter: up to 0.16 % of instructions for calls of 1.6 million, less for longer ones.

So a difference of 1 % comes from the code, a library, or the processor that the code saw.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.analysis.summary import Group
from bench.runner.records import enter, records, write
from bench.runner.run import Progress, Settings
from bench.runner.subprocesses import Died, lines_of
from reports.bench_records import Counters, read

SILENCE = 3600.0  # seconds after which a group counts as hanging: under valgrind a call takes fifty times as long
ASKED = ("workloads", "peers", "dtypes", "device", "threads", "seed", "as_step")  # what counts depend on, of `Settings`


def count(folder: Path, workloads: Sequence[str], *, progress: Progress | None = None, **settings: Any) -> list[Counters]:
    """Count into `folder`: new, of a run of the same code, or of a count like this that was broken off.

    Raises ValueError for settings that make no sense or are not those of the run in the folder.
    """
    asked = Settings(workloads=tuple(workloads), **{"threads": (1,), **settings})
    if asked.threads != (1,):
        threads = ",".join(map(str, asked.threads))
        raise ValueError(f"--threads: expected 1 with --counters (waiting threads spin, and that would be counted), got {threads}")
    if asked.device != "cpu":
        raise ValueError(f"--device: expected cpu with --counters (a GPU's instructions are not seen), got {asked.device!r}")
    # counts need no baseline: a peer that was not asked for is not counted
    groups = [replace(group, peers=tuple(peer for peer in group.peers if peer in asked.peers)) for group in asked.groups()]
    cells = [group.cell(peer) for group in groups for peer in group.peers]
    if not cells:
        raise ValueError(f"--peers: expected one that offers a step of the workloads, got {', '.join(asked.peers)}")
    wanted = {name: getattr(asked, name) for name in ASKED}
    enter(folder, "counters", wanted, cells, device=asked.device, seed=asked.seed)
    done = {line.id: line for line in records(folder, Counters)}
    for group in groups:
        if progress is not None:
            progress(group.id, len(done), len(cells))
        todo = [peer for peer in group.peers if group.cell(peer) not in done]
        for line in _counted(group, todo, asked.seed) if todo else []:
            write(folder, line)
            done[line.id] = line
    return [done[cell] for cell in cells]


def _counted(group: Group, peers: Sequence[str], seed: int) -> list[Counters]:
    """All counts of one group, from a fresh process; from another one without the peer that brought it down, if one did."""
    failed: dict[str, str] = {}
    while True:
        order = {"group": group.fields, "threads": group.threads, "seed": seed, "peers": peers, "failed": failed}
        try:
            said = lines_of(order, SILENCE, "bench.counters.counting")
            return [read(line["counters"], Counters) for line in said if "counters" in line]
        except Died as death:
            if death.peer not in peers or death.peer in failed:  # no peer's fault: it would die for ever
                raise RuntimeError(f"python -m bench.counters.counting: {death.message}") from death
            failed[death.peer] = death.message
