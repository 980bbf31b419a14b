"""Work shared among processes, by joblib."""

import argparse
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


def with_jobs(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What a command line says, `--jobs` among it."""
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 is one for each core")
    given = parser.parse_args()
    if given.jobs == 0:
        parser.error("--jobs: expected a number of processes, or -1 for one on each core, got 0")
    return given


def in_parallel(work: Callable[..., Any], jobs: Iterable[Sequence[Any]], processes: int, *, ordered: bool = False) -> Iterator[Any]:
    """What `work` returns for the arguments of each job, as it is done or, `ordered`, as they came; −1: a process for each core.

    The processes ignore Ctrl-C, which a terminal sends to all: this one hears it, and ends them.
    """
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=processes, return_as="generator" if ordered else "generator_unordered")
    calls = (delayed(work)(*job) for job in jobs)
    if threading.current_thread() is not threading.main_thread():
        return iter(pool(calls))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit: they start here
    try:
        return iter(pool(calls))
    finally:
        signal.signal(signal.SIGINT, before)
