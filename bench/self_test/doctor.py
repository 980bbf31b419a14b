"""What this machine is, how far it can tell a thing from itself, and what should not be trusted on it."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.analysis.statistics import CPU_MARGIN, GPU_MARGIN, WIDEST_REACH
from bench.peers.table import PEERS, absence
from bench.runner import machine
from bench.runner.clock import RESET
from bench.runner.records import records
from bench.runner.run import run
from properties.run.run_folder import environment
from reports.bench_records import Control, Roof

WORKLOAD = "attention.128"
SECONDS = 8.0  # and a start of two processes
PROCESSES = 3
BUSY = 0.10  # CPU pressure above which the machine is busy
QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Findings:
    """What is here, by name, and what speaks against timing."""

    here: dict[str, str]
    warnings: list[str]
    noise_floor: float | None


def examine(device: str = "cpu") -> Findings:
    """Look around, and time something against itself."""
    control, rates = noise(device)
    about = environment(device)
    load = machine.load()
    absent = [reason for name in PEERS if (reason := absence(name))]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    variables = [f"{name}={os.environ[name]}" for name in machine.THREAD_VARIABLES if name in os.environ]
    mean = "unknown" if load["load"] is None else f"{load['load']:.1f} in the last minute"
    sampled = f"{control.processes} processes of one thread, {control.rounds} rounds"
    here = {
        "processor": f"{about['processor']}, {machine.cores()} cores for this process",
        "devices": ", ".join(["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(gpus))]),
        "threads": f"torch {torch.get_num_threads()}; " + (", ".join(variables) or "no variable sets them (`bench` pins its own)"),
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version),
        "load": mean + ("" if load["pressure"] is None else f"; CPU pressure {load['pressure']:.0%}"),
        "limits": rates,
        "noise floor": "unknown" if control.reach is None else f"±{control.reach:.1%} for {WORKLOAD} in {sampled}",
        "not here": "; ".join(absent) or "nothing: every peer is installed",
    }
    return Findings(here, _warnings(device, load, control), control.reach)


def noise(device: str) -> tuple[Control, str]:
    """An attention against itself in a few fresh processes of one thread: the control, and the limits measured beside it."""
    settings: dict[str, Any] = {"peers": ("torch.eager",), "threads": (1,), "processes": PROCESSES, "adapt": False}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "doctor"
        summary = run(folder, WORKLOAD, SECONDS, device=device, **settings)
        roofs = records(folder, Roof)
    products, read = (
        max((roof.rate for roof in roofs if roof.limit == limit), default=0.0) / 1e9 for limit in ("products", "read")
    )
    return summary.controls[0], f"products {products:.0f} GF/s, memory {read:.0f} GB/s (one thread, float32)"


def _warnings(device: str, load: dict[str, Any], control: Control) -> list[str]:
    """What cannot be trusted here, one line each."""
    margin = CPU_MARGIN if device == "cpu" else GPU_MARGIN
    busy, cores, found = "", machine.cores(), []
    if load["pressure"] is not None:
        busy = f"CPU pressure is {load['pressure']:.0%}" if load["pressure"] > BUSY else ""
    elif (load["load"] or 0) > cores:
        busy = f"its load is {load['load']:.1f} on {cores} cores"
    if busy:
        found.append(f"others use this machine: {busy}; times mean little, ratios hold")
    if control.reach is None:
        found.append("the noise floor could not be measured in the time")
    elif control.reach > WIDEST_REACH:
        found.append(f"A/A noise is above {WIDEST_REACH:.0%} in {SECONDS:.0f} s: short comparisons will be untrusted")
    elif control.reach > margin:
        found.append(f"differences below {control.reach:.0%} are not seen in {SECONDS:.0f} s: give `bench` a longer time limit")
    if not os.access(RESET, os.W_OK):
        found.append("peak memory on the processor cannot be read here (no writable /proc/self/clear_refs)")
    if (quota := _quota()) is not None and quota < cores:
        found.append(f"this process may use {quota:.1f} cores' time but sees {cores}: give --threads {max(1, int(quota))}")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        found.append("there is no C++ compiler: torch.compile's peers will fail on the processor")
    if device != "cpu" and (reasons := machine.throttled(device)):
        found.append(f"the GPU runs below its clock: {reasons}")
    if not torch.cuda.is_available():
        found.append("there is no GPU: nothing can be said about one")
    return found


def _quota() -> float | None:
    """The cores' time that a control group allows, if it limits it."""
    try:
        limit, period = QUOTA.read_text(encoding="ascii").split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None
