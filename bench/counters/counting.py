"""One fresh process that counts: `python -m bench.counters.counting`, a JSON order on its input, JSON lines on its output.

order   {"group": {fields that all lines of the group have}, "threads": 1, "seed", "peers": [...], "failed": {peer: message}}
lines   {"at": [group, peer]}        before anything of a peer's runs: if the process dies now, that peer did it
        {"counters": {...}}          one a peer, as bench.jsonl holds it
"""

import json
import os
import sys
from dataclasses import asdict, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.counters import callgrind
from bench.peers.base import Built
from bench.peers.table import peer
from bench.runner import correctness, machine
from bench.runner.timer import Kept
from bench.runner.worker import Say, absence, speaker
from bench.workloads import named
from reports.bench_records import Counters

NOT_TORCH = "its operators are not torch's"
WARM_CALLS = 2  # the first call may set up what later ones find


def main() -> None:
    """Count all peers of one group."""
    order = json.load(sys.stdin)
    say = speaker()
    torch.set_grad_enabled(False)
    machine.pin_threads(order["threads"])
    os.environ |= callgrind.environment()
    for line in count_group(order, say):
        say({"counters": asdict(line)})


def count_group(order: dict[str, Any], say: Say) -> list[Counters]:
    """Operators and memory of every peer, then the instructions of those whose output is right."""
    group, found = order["group"], []
    for name in order["peers"]:
        line = Counters(id=f"{group['group']}/{name}", peer=name, status="failed", **group)
        if name in order["failed"]:
            found.append(replace(line, message=order["failed"][name]))
            continue
        say({"at": [group["group"], name]})
        found.append(_judged(line, order["seed"]))
    say({"at": [group["group"], "under callgrind"]})
    right = [line for line in found if line.status == "measured"]
    cells = [callgrind.Cell(line.workload, line.peer, line.dtype, line.device, order["seed"]) for line in right]
    counted = {line.id: count for line, count in zip(right, callgrind.instructions(cells), strict=True)}
    return [_with(line, counted[line.id]) if line.id in counted else line for line in found]


def _judged(line: Counters, seed: int) -> Counters:
    """A line with the operators and the memory of one call, if the output of that call is right."""
    workload = named(line.workload)
    calls = workload.calls(seed)
    parts = correctness.parts(workload, calls, seed)
    try:
        built = peer(line.peer).build(workload, calls, line.dtype, line.device)
        output, operators, allocated = per_call(built)
        kept = {"first": Kept(0, parts[0].of(output))}
    except Exception as error:
        status, message = absence(error)
        return replace(line, status=status, message=message)
    verdict = correctness.judge(workload, correctness.Judged(line.peer, built.dtype, line.device), parts, kept)
    if not verdict.passed:
        return replace(line, status="wrong", message=f"{verdict.claim}: {verdict.message}", gate=verdict)
    message = NOT_TORCH if operators is None else ""
    return replace(line, status="measured", message=message, gate=verdict, operators=operators, allocated_bytes=allocated)


def per_call(built: Built) -> tuple[Any, int | None, int | None]:
    """The output of one call, the torch operators it calls and the bytes it has torch allocate; None for what is not torch's."""
    given = built.arguments[0]
    for _ in range(WARM_CALLS):
        built.call(*given)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        output = built.call(*given)
    if not isinstance(output, torch.Tensor):
        return output, None, None
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    operators, allocated = 0, 0
    events = list(seen.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        size: int | None = getattr(event.extra_fields, "alloc_size", None)
        if size is not None:
            allocated += max(0, size)  # it is negative for what is given back
        elif "::" in event.name and "autograd::" not in event.name:
            operators += 1
    return output, operators, allocated


def _with(line: Counters, counted: float | str) -> Counters:
    if isinstance(counted, float):
        return replace(line, instructions=counted)
    return replace(line, message="; ".join(filter(None, [line.message, f"no instructions: {counted}"])))


if __name__ == "__main__":
    main()
