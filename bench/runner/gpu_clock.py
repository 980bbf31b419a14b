"""Time and memory of calls on a GPU: its own events around each call, and its cache emptied before."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

FLUSHED = 256 * 2**20  # bytes written before each call: more than any second-level cache


class GpuClock:
    """Each call between two events on the device's own clock, behind a write that empties its cache."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.cache = torch.empty(FLUSHED, dtype=torch.int8, device=self.device)

    def time(self, call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> tuple[float, Any]:
        """Call once for each of `arguments`: ns a call, and the last result."""
        result, events = None, []
        for given in arguments:
            self.cache.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            result = call(*given)
            end.record()
            events.append((start, end))
        torch.cuda.synchronize(self.device)
        return sum(start.elapsed_time(end) for start, end in events) * 1e6 / len(events), result

    def peak_bytes(self, call: Callable[[], Any]) -> int | None:
        """How far one call raises the memory that torch has allocated on the device."""
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before
