"""Between two peers: the threads that one left behind fall asleep, and the memory it freed goes back to the system.

A pool of threads does not stop when its call returns: it spins for a while, since more work may come (GNU's OpenMP for some
7 ms, OpenBLAS for a tenth of a second, Intel's OpenMP for two tenths). Whoever is timed meanwhile has to share its cores with it:
on two cores PyTorch's attention of 512 tokens took 20 ms beside NumPy's idle threads, and 3.8 ms without them.

Memory that stays with the process (`bench.runner.machine.HELD`) would be the next peer's by luck, and all peers' together too much:
scores of 8192 tokens take gigabytes.
"""

import ctypes
import threading
import time
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # not a system of the Unix family
    resource = None

TASKS = Path("/proc/self/task")
LOOK_EVERY = 0.001  # seconds
LONGEST = 0.5  # seconds: above the longest spinning known, by a factor of two


def running() -> int:
    """The threads of this process, but for the calling one, that are on a core or wait for one; 0 where that cannot be seen."""
    me = str(threading.get_native_id())
    count = 0
    with suppress(OSError):
        for task in TASKS.iterdir():
            with suppress(OSError):  # a thread that ended meanwhile
                count += task.name != me and (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "R"
    return count


def wait() -> bool:
    """Sleep until no other thread of this process runs; False if one still did after LONGEST seconds."""
    until = time.perf_counter() + LONGEST
    while running():
        if time.perf_counter() > until:
            return False
        time.sleep(LOOK_EVERY)
    return True


def fetched() -> int:
    """The pages of memory that this process has fetched from the system since it began; 0 where nobody counts them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def give_back() -> None:
    """Return to the system all memory that was freed, where its allocator can be asked to."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
