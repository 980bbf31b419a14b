"""The process that the tests run in, from this side: what was collected, and runs, several at once."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from properties.run.subprocesses import ending, started
from veriformer.packages import their_environment
from veriformer.settings import Refused

RUNNER = Path(__file__).resolve().parents[1] / "isolation" / "tests_runner.py"
ALONE = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a GPU starts no context, which no fork could use
    "OMP_NUM_THREADS": "1",  # runs are the parallelism, and threads do not survive a fork
    "MKL_NUM_THREADS": "1",
}
Answer = dict[str, Any]


@dataclass(frozen=True)
class Collected:
    """What pytest collected, and what is known of the kernel without a call."""

    items: list[str]
    parameters: list[str] | None
    all_axes: bool
    takes_self: bool
    path: list[str]
    files: list[str]


class Session:
    """Tests that are collected, ready to run with anything in the kernel's place."""

    def __init__(self, process: subprocess.Popen[str], request: dict[str, Any]) -> None:
        """Raises Refused, in one line, where nothing can be collected or replaced."""
        self._process = process
        self._write(request)
        told = self._read()
        if "refused" in told:
            raise Refused(told["refused"])
        self.collected = Collected(**told)

    def runs(self, jobs: Sequence[Callable[[], dict[str, Any]]], at_once: int) -> Iterator[Answer]:
        """Each run's answer as it ends; a job is made when its turn comes, of what is known by then."""
        waiting, running = list(reversed(jobs)), 0
        while waiting or running:
            while waiting and running < at_once:
                self._write(waiting.pop()())
                running += 1
            yield self._read()
            running -= 1

    def import_once(self, modules: Sequence[str]) -> None:
        """Have these modules imported for all runs to come."""
        self._write({"import": list(modules)})

    def _write(self, told: dict[str, Any]) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._gone() from None

    def _read(self) -> Answer:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise self._gone()
        return json.loads(line)

    def _gone(self) -> Refused:
        return Refused(
            f"--tests: the process that runs them {ending(self._process.wait())}, while it imported them or between runs"
        )


@contextmanager
def opened(tests: Sequence[str], replaces: str, step: str, seconds: float) -> Iterator[Session]:
    """A session for as long as it is wanted. Raises Refused where nothing can be collected within `seconds`."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="veriformer-"))
        request = {"folder": str(Path.cwd()), "tests": list(tests), "replaces": replaces, "step": step, "scratch": scratch}
        environment = {**their_environment(), **ALONE, "HYPOTHESIS_STORAGE_DIRECTORY": scratch}
        command = [sys.executable, "-P", RUNNER]
        process = stack.enter_context(started(command, **pipes, text=True, encoding="utf-8", env=environment))
        with _limit(process, seconds, f"--tests: they were not collected within {seconds:g} s"):
            session = Session(process, request)
        yield session


@contextmanager
def _limit(process: subprocess.Popen[str], seconds: float, complaint: str) -> Iterator[None]:
    """End the process after so many seconds, and say so."""
    began = time.monotonic()
    timer = threading.Timer(seconds, process.terminate)
    timer.start()
    try:
        yield
    except Refused:
        if time.monotonic() - began >= seconds:
            raise Refused(complaint) from None
        raise
    finally:
        timer.cancel()
