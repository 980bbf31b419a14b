"""The machine while it is timed: pinned threads, kept memory, load, CPU pressure, a GPU's throttling."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import threadpoolctl
import torch

PRESSURE = Path("/proc/pressure/cpu")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

HELD = {  # what a fresh process is given, unless the user's environment says otherwise
    # glibc returns a large array to the system, or keeps it, as its heap happens to lie: PyTorch's attention of 512 tokens took
    # 4 ms in one process and 10 ms in the next. So memory is kept, and returned before another peer's turn (`settle`). By
    # default glibc returns 32 MiB and more at once, and that attention of 1024 tokens takes 40 ms instead of 16.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**60),
    # NumPy's OpenBLAS spins for a tenth of a second after a product, and every peer after the oracle would have to wait.
    "OPENBLAS_THREAD_TIMEOUT": "22",  # 2²² cycles: a millisecond or two
}


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fresh_environment(threads: int) -> dict[str, str]:
    """The environment of a fresh process: so many threads in its pools, and memory that it keeps."""
    return HELD | os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))


def pin_threads(threads: int) -> list[str]:
    """Limit every thread pool of this process to `threads`. Returns one line for each pool found."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(limits=threads)
    pools = [
        f"{pool['internal_api']} {pool.get('version') or ''}: {pool['num_threads']}" for pool in threadpoolctl.threadpool_info()
    ]
    return [f"torch: {torch.get_num_threads()}", *pools]


def load() -> dict[str, Any]:
    """The load of the last minute, and the CPU pressure (PSI, some) of the last ten seconds; null if unknown."""
    pressure = None
    with suppress(OSError, IndexError, ValueError):
        some = PRESSURE.read_text(encoding="ascii").splitlines()[0].split()
        pressure = float(some[1].partition("=")[2]) / 100
    return {"load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "pressure": pressure, "at": time.time()}


def between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Two readings as a process line holds them."""
    return {name: [before[name], after[name]] for name in ("load", "pressure")}


def throttled(device: str) -> str:
    """Why a GPU runs below its clock now, as its driver names it; "" if it does not, or if that is unknown."""
    if device == "cpu":
        return ""
    try:
        import pynvml  # the package nvidia-ml-py  # pyright: ignore[reportMissingImports]

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.device(device).index or 0)
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except Exception:
        return ""
    names = {
        name: value for name, value in vars(pynvml).items() if name.startswith("nvmlClocksEventReason") and isinstance(value, int)
    }
    idle = names.get("nvmlClocksEventReasonGpuIdle", 0)
    return ", ".join(sorted(name for name, bit in names.items() if bit and bit & (bit - 1) == 0 and reasons & bit & ~idle))
