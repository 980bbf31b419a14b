"""One fresh process of a benchmark: `python -m bench.runner.worker`, a JSON order on its input, JSON lines on its output.

order   {"process", "seed", "order_seed", "threads", "device", "until", "known", "roofs", "jobs": [{"group": {fields
         that all lines of the group have}, "peers": [...], "last": [...], "seconds", "absent": {peer: [status, message]}}]}
lines   {"at": [group, peer]}        before anything of a peer's runs: if the process dies now, that peer did it
        {"at": [...], "judging": true}   before the oracle judges the peer's outputs
        {"process": {...}}           a finished group, as bench.jsonl holds it
        {"roofs": [{...}]}           the machine's limits
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.peers import ours, torch_modules  # noqa: F401 (imported once, and not in each process that is forked)
from bench.peers.base import Built
from bench.peers.kernels import kernels
from bench.peers.table import AGAIN, peer
from bench.runner import correctness, limits, machine
from bench.runner.apart import POSSIBLE, Apart, NotBuilt, finish
from bench.runner.clock import Clock, ProcessorClock, clock_of
from bench.runner.timer import Entry, run_rounds
from bench.workloads import Workload, named
from properties.inputs.parameters import Call
from properties.verdicts import NotOffered
from reports.bench_records import Gate, Process, Timed, read
from reports.records import encoded

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do what the order says, group by group, until the time is over."""
    order = json.load(sys.stdin)
    say = speaker()
    torch.set_grad_enabled(False)
    pools = machine.pin_threads(order["threads"])
    known = {digest: read(fields, Gate) for digest, fields in order["known"].items()}
    if order["process"] == 0:
        kernels(Built(lambda: torch.ones(1) + 1, [()], "", ""), "")  # imports what watches, once and not in each forked process
    for job in order["jobs"]:
        if time.time() > order["until"]:
            break
        process = time_group(job, order, known, pools, say)
        say({"process": asdict(process)})
    if order["roofs"] and time.time() < order["until"]:
        say({"at": ["roof", ""]})
        clock = _clock(order["device"])
        say({"roofs": [asdict(line) for line in limits.measure(order["roofs"], order["device"], order["threads"], clock)]})


def time_group(job: dict[str, Any], order: dict[str, Any], known: dict[str, Gate], pools: list[str], say: Say) -> Process:
    """All peers of one group, timed and judged."""
    started, before, group = time.time(), machine.load(), job["group"]
    workload, at = named(group["workload"]), group["group"]
    calls = workload.calls(order["seed"])
    parts = correctness.parts(workload, calls, order["seed"])
    entries: dict[str, Entry | Apart] = {}
    absent = {name: Timed(name, *why) for name, why in job["absent"].items()}
    rng = np.random.default_rng([order["order_seed"], order["process"]])
    apart = POSSIBLE and group["device"] == "cpu"  # on a GPU each process would take of its memory, and thread pools are idle
    clock = ProcessorClock() if apart else _clock(group["device"])
    pids: list[int] = []
    for name in map(str, rng.permutation([name for name in job["peers"] if name not in absent])):  # or the first lies best
        say({"at": [at, name]})
        make = partial(_built, name, workload, calls, group, parts)
        try:
            entries[name] = Apart(make, partial(_clock, group["device"]), pids) if apart else make()
        except NotBuilt as why:
            absent[name] = Timed(name, why.status, why.message)
    turn = {"watch": lambda name: say({"at": [at, name]}), "until": order["until"], "last": job["last"]}
    run_rounds(entries, clock, rng, started + job["seconds"] - time.time(), **turn)
    finished = {name: _finished(entry, name, order) for name, entry in entries.items()}
    timed = []
    for name in job["peers"]:
        if name not in absent:
            say({"at": [at, name], "judging": True})
        timed.append(absent[name] if name in absent else _timed(name, finished[name], workload, order, parts, known))
    return Process(
        id=f"{at}/#{order['process']}",
        **group,
        process=order["process"],
        seed=order["seed"],
        started=started,
        seconds=round(time.time() - started, 3),
        timed=timed,
        load=machine.between(before, machine.load()),
        pools=pools,
        disturbed={name: entry.disturbed for name, entry in finished.items() if entry.disturbed},
        repeated={name: entry.repeated for name, entry in finished.items() if entry.repeated},
        throttled=machine.throttled(order["device"]),
    )


def _built(name: str, workload: Workload, calls: list[Call], group: dict[str, Any], parts: list[correctness.Part]) -> Entry:
    """A peer ready to be timed, in the process that it will be timed in. Raises NotBuilt."""
    try:
        built = peer(name.removesuffix(AGAIN)).build(workload, calls, group["dtype"], group["device"])
    except Exception as error:
        raise NotBuilt(*absence(error)) from None
    return Entry(built, lambda variant, output: parts[variant].of(output))


def _finished(entry: Entry | Apart, name: str, order: dict[str, Any]) -> Entry:
    watch, name = order["process"] == 0, name.removesuffix(AGAIN)
    return entry.finish(name, watch=watch) if isinstance(entry, Apart) else finish(entry, name, watch=watch)


def _clock(device: str) -> Clock:
    """The clock of a device, once what all peers share (thread pools, libraries) is loaded: no first call pays for it."""
    _warm_up(device)
    return clock_of(device)


def _timed(
    name: str, entry: Entry, workload: Workload, order: dict[str, Any], parts: list[correctness.Part], known: dict[str, Gate]
) -> Timed:
    """One peer's samples, unless it raised or its outputs are wrong."""
    if entry.error:
        return Timed(name, "failed", entry.error)
    if entry.skipped_because:
        return Timed(name, "missing", entry.skipped_because)
    judged = correctness.Judged(name.removesuffix(AGAIN), entry.built.dtype, order["device"])
    verdict = correctness.judge(workload, judged, parts, entry.kept, known)
    return Timed(
        name,
        "measured" if verdict.passed else "wrong",
        "" if verdict.passed else f"{verdict.claim}: {verdict.message}",
        really=entry.built.dispatched,
        inner=entry.inner,
        samples=[round(sample, 1) for sample in entry.samples],
        order=entry.order,
        at=entry.at,
        first_call_ns=entry.first_call_ns,
        peak_bytes=entry.peak_bytes,
        gate=verdict,
    )


def absence(error: Exception) -> tuple[str, str]:
    """The status of a peer that could not be built, and why in one line."""
    status = (
        "not offered"
        if isinstance(error, NotOffered | NotImplementedError)
        else "not installed"
        if isinstance(error, ImportError)
        else "failed"
    )
    message = str(error) if status != "failed" else f"{type(error).__name__}: {error}"
    return status, (message.strip().splitlines() or [""])[0][:300]


def _warm_up(device: str) -> None:
    """Load them by using them."""
    square = torch.ones(256, 256, device=device)
    torch.softmax(square @ square, dim=-1).sum().item()
    np.linalg.norm(np.ones((256, 256)) @ np.ones((256, 256)))


def speaker() -> Say:
    """Lines go to stdout; what a library prints there goes to stderr instead."""
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        real.write(encoded(line) + "\n")
        real.flush()

    return say


if __name__ == "__main__":
    main()
