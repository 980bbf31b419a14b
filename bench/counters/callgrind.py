"""Instructions by valgrind's callgrind, through torch's timer.

It counts the code that libraries choose for the processor that valgrind emulates, which knows AVX2 and not AVX-512.
"""

import gc
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from bench.peers.table import peer
from bench.workloads import named

TOOLS = ("valgrind", "callgrind_control", "callgrind_annotate")
LONG = 1e8  # flops of a call that takes minutes under valgrind if it is made often
CALLS, WARM = 5, 12  # calls that are counted, and those before: the interpreter specialises what ran eight times
LONG_CALLS, LONG_WARM = 1, 2


@dataclass(frozen=True)
class Cell:
    """Whose call is counted, as plain values that pass to another process."""

    workload: str
    peer: str
    dtype: str
    device: str
    seed: int


def missing() -> str:
    """Why nothing can be counted here; "" if it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not on PATH: {', '.join(absent)}"
    supported = getattr(torch._C, "_valgrind_supported_platform", None)  # noqa: SLF001 (torch's timer asks the same)
    return "" if supported is not None and supported() else "this build of torch has no bindings to callgrind"


def environment() -> dict[str, str]:
    """What a process must find in its environment to count alike each time: one seed of hashes; and this Python as `python`."""
    here = str(Path(sys.executable).parent)
    return {"PYTHONHASHSEED": "0", "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


def instructions(cells: list[Cell]) -> list[float | str]:
    """Instructions that one call of each cell executes, or why they could not be counted.

    All in one process, since importing torch under valgrind takes a minute; if that fails, each in its own.
    """
    why = missing()
    if why or not cells:
        return [why for _ in cells]
    try:
        return [*_together(cells)]
    except (OSError, subprocess.SubprocessError) as error:
        if len(cells) > 1:
            return [count for cell in cells for count in instructions([cell])]
        return [str(error).strip().splitlines()[-1][:300] or type(error).__name__]


def _together(cells: list[Cell]) -> list[float]:
    plain = [asdict(cell) for cell in cells]
    setup = f"from bench.counters.callgrind import Turns\nturn = Turns({plain!r})"
    timer = Timer("turn()", setup=setup)  # each of its repeats is the turn of another cell
    counted = timer.collect_callgrind(number=1, repeats=len(cells), collect_baseline=False, retain_out_file=False)
    return [stats.counts() / calls(cell)[1] for stats, cell in zip(counted, cells, strict=True)]


def calls(cell: Cell) -> tuple[int, int]:
    """How many calls of a cell warm it up, and how many are counted: by its size, not by its measured speed."""
    return (LONG_WARM, LONG_CALLS) if named(cell.workload).flops > LONG else (WARM, CALLS)


class Turns:
    """Inside the emulator: each call is the next cell's turn. The first is empty: the timer's own warm-up."""

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        torch.set_grad_enabled(False)
        self.turns: list[tuple[Any, tuple[Any, ...], int]] = [(lambda: None, (), 0)]
        for cell in (Cell(**fields) for fields in cells):
            workload = named(cell.workload)
            built = peer(cell.peer).build(workload, workload.calls(cell.seed), cell.dtype, cell.device)
            warm, counted = calls(cell)
            for _ in range(warm):
                built.call(*built.arguments[0])
            self.turns.append((built.call, built.arguments[0], counted))
        self.next = iter(self.turns).__next__
        gc.disable()  # a collection would be charged to whose turn it is

    def __call__(self) -> None:
        """One turn: some calls in a row."""
        call, given, count = self.next()
        for _ in range(count):
            call(*given)
