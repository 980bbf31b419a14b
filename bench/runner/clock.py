"""Time and memory of calls: the processor's clock, and the protocol of every device's clock. Imports no torch."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.runner import settle

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")  # "5" sets the highest resident memory back to the present one


class Clock(Protocol):
    """Times calls on one device, and sees how much memory one needs."""

    def time(self, call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> tuple[float, Any]:
        """Call once for each of `arguments`: ns a call, and the last result."""
        ...

    def peak_bytes(self, call: Callable[[], Any]) -> int | None:
        """How far one call raises the memory in use, its result included; None where that cannot be seen."""
        ...


class ProcessorClock:
    """Calls in a row between two readings of the processor's clock."""

    def time(self, call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> tuple[float, Any]:
        """Call once for each of `arguments`: ns a call, and the last result."""
        result = None
        start = time.perf_counter_ns()
        for given in arguments:
            result = call(*given)
        return (time.perf_counter_ns() - start) / len(arguments), result

    def peak_bytes(self, call: Callable[[], Any]) -> int | None:
        """How far one call raises the process's resident memory, after what was freed before has been given back."""
        gc.collect()
        settle.trim_memory()
        try:
            RESET.write_text("5", encoding="ascii")
            before = _resident("VmRSS")
            call()
            return max(0, _resident("VmHWM") - before)
        except (OSError, StopIteration):
            return None


def clock_of(device: str) -> Clock:
    """The clock of a device."""
    if device == "cpu":
        return ProcessorClock()
    from bench.runner.gpu_clock import GpuClock

    return GpuClock(device)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect now, and not again of itself until the end: a collection inside one peer's sample would be charged to it.

    What is alive now is left alone even by a collection that is asked for: what libraries hold would take a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _resident(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])
