"""Between two peers: wait until idle thread pools sleep, and return freed memory to the system.

A thread pool does not stop when its call returns. It spins on, since more work may come: GNU's OpenMP for 7 ms, OpenBLAS for
100 ms, Intel's OpenMP for 200 ms. A peer that is timed meanwhile shares its cores: on two, PyTorch's attention of 512 tokens took
20 ms beside NumPy's idle threads, and 3.8 ms without them. Memory that stays with the process (`machine.HELD`) would be the next
peer's by luck, and all peers' together too much: scores of 8192 tokens take gigabytes.
"""

import ctypes
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # not a system of the Unix family
    resource = None

PROCESSES = Path("/proc")
TASKS = PROCESSES / "self/task"
LOOK_EVERY = 0.001  # seconds
LONGEST = 0.5  # seconds: twice the longest spinning known


def running(processes: Iterable[int | str] = ("self",)) -> int:
    """The threads of these processes, but for the one that asks, that run or wait for a core; 0 where that cannot be seen."""
    me = str(threading.get_native_id())
    count = 0
    for process in processes:
        with suppress(OSError):
            for task in (PROCESSES / str(process) / "task").iterdir():
                with suppress(OSError):  # a thread that ended meanwhile
                    state = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
                    count += task.name != me and state == "R"
    return count


def wait(processes: Iterable[int | str] = ("self",)) -> bool:
    """Sleep until no other thread of these processes runs; False if one still did after LONGEST seconds."""
    until = time.perf_counter() + LONGEST
    while running(processes):
        if time.perf_counter() > until:
            return False
        time.sleep(LOOK_EVERY)
    return True


def page_faults() -> int:
    """The (minor) page faults of this process since it began; 0 where they are not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def trim_memory() -> None:
    """Return freed memory to the system, where the allocator can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
