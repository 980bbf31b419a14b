"""Where the time of a peer of `veriformer bench` goes: torch's profiler over some calls of it, as shares of its operators.

    python examples/where_time_goes.py transformer.article bfloat16 optimized.tuned

Workloads and peers are those of `veriformer bench --list`. A share is of the time inside operators; what Python takes between them
is told apart. Other libraries than torch are one operator, or none.
"""

import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from bench.peers.table import peer
from bench.workloads import named

CALLS, SHOWN = 5, 8


def main(workload: str = "training.16x64", dtype: str = "float32", name: str = "optimized") -> None:
    """Print the operators that take most."""
    asked = named(workload)
    built = peer(name).build(asked, asked.calls(0), dtype, "cpu")

    def call() -> None:
        built.call(*built.arguments[0])

    call()
    with torch.inference_mode(asked.step != "training"), profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        seconds = time.perf_counter() - began
    operators = sorted(seen.key_averages(), key=lambda each: -each.self_cpu_time_total)
    inside = sum(each.self_cpu_time_total for each in operators) / 1e6
    between = max(0.0, 1 - inside / seconds)
    print(f"{name}, {workload}, {dtype}: {seconds / CALLS * 1e3:.3g} ms a call, {between:.0%} between operators")
    for each in operators[:SHOWN]:
        print(f"{each.self_cpu_time_total / 1e6 / inside:5.0%}  {each.key}, {each.count / CALLS:.3g} a call")


if __name__ == "__main__":
    main(*sys.argv[1:])
