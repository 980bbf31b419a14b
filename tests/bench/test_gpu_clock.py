"""The GPU's clock: what it does in which order, seen on a device that only takes notes; and on a real one where there is one."""

import pytest
import torch

from bench.runner.gpu_clock import FLUSHED, GpuClock
from bench.runner.run import run

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")


@pytest.fixture
def notes(monkeypatch):
    """What was asked of the device, in order; its clock goes 2 ms forward with every event."""
    written: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            written.append("event")
            self.at = 2.0 * written.count("event")

        def elapsed_time(self, end: "Event") -> float:
            assert written[-1] == "wait", "read before the device was done"
            return end.at - self.at

    class Cache:
        def zero_(self) -> None:
            written.append("flush")

    def empty(size: int, **_: object) -> Cache:
        assert size == FLUSHED
        return Cache()

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: written.append("wait"))
    monkeypatch.setattr(torch, "empty", empty)
    return written


def test_each_call_is_between_two_events_behind_an_emptied_cache(notes):
    """The device is waited for once, after all calls; the time is the mean, in ns."""
    clock = GpuClock("cuda")

    took, result = clock.time(lambda word: notes.append(word) or word, [("one",), ("two",)])

    assert notes == ["flush", "event", "one", "event", "flush", "event", "two", "event", "wait"]
    assert took == pytest.approx(2e6)
    assert result == "two"


def test_memory_is_how_far_a_call_raises_the_peak(notes, monkeypatch):
    """Of what torch has allocated, from a peak that was set back, and after the call is done."""
    peak = 100
    clock = GpuClock("cuda")

    def call() -> None:
        nonlocal peak
        notes.append("call")
        peak = 130

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: notes.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peak)

    assert clock.peak_bytes(call) == 30
    assert notes == ["wait", "reset", "call", "wait"]


@needs_gpu
def test_a_long_kernel_is_seen_to_be_longer():
    """Launching both takes the same; only the device's own clock tells them apart."""
    clock = GpuClock("cuda")
    small, large = (torch.ones(n, n, device="cuda") for n in (256, 8192))
    clock.time(torch.matmul, [(small, small), (large, large)])

    assert clock.time(torch.matmul, [(large, large)])[0] > 10 * clock.time(torch.matmul, [(small, small)])[0]
    assert clock.peak_bytes(lambda: torch.matmul(large, large)) >= 4 * 8192**2


@needs_gpu
def test_a_run_on_the_gpu_measures_what_it_can(tmp_path):
    """Judged and timed there; what has no such device is not among the peers."""
    summary = run(
        tmp_path / "run",
        "attention.64",
        60.0,
        device="cuda",
        peers=("reference", "optimized", "torch.eager"),
        processes=2,
        adapt=False,
    )

    status = {cell.peer: cell.status for cell in summary.cells}
    assert status["optimized"] == status["torch.eager"] == "measured", summary.cells
