"""pytest is the engine: a request to verify becomes a pytest run of our properties, in a process of its own.

Neither the user's conftest, configuration or environment nor any plugin we do not name takes part: the same request means the
same run everywhere.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from properties.run.subprocesses import started
from veriformer.packages import ROOT
from veriformer.run_options import RUN_OPTIONS

PLUGINS = ("veriformer", "hypothesispytest")
PROFILES = ("quick", "ci", "nightly")
NOT_INHERITED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "HYPOTHESIS_PROFILE")
PAUSE = 0.2  # seconds between two looks at what is finished

Progress = Callable[[], None]


@dataclass(frozen=True)
class Request:
    """What is to be verified, and how hard to look: a field for each option of `run_options`, and what the options do not say."""

    targets: tuple[str, ...]
    run: Path
    step: str | None = None
    arrays: str | None = None
    dtypes: tuple[str, ...] = ()  # none: all that a target supports
    device: str = "cpu"
    claims: tuple[str, ...] = ()  # none: all
    conventions: str | None = None  # as `properties.conventions.declarations` reads them, and so is the contract
    contract: str | None = None
    like: str | None = None  # whose conventions those are that are not named
    domain: str | None = None  # which arguments a target takes
    backward: bool = False  # gradients too, by autograd, of what a target offers forward alone
    examples: int | None = None
    seed: int | None = None
    maxfail: int | None = None  # broken checks after which nothing more is run
    profile: str = "ci"
    max_time: float = 10.0
    workers: int = 1

    def arguments(self) -> list[str]:
        """The arguments of pytest."""
        options = [
            str(ROOT / "properties"),
            f"--rootdir={ROOT}",
            f"--confcutdir={ROOT}",
            f"--config-file={Path(__file__).with_name('pytest.ini')}",
            "--disable-plugin-autoload",
            *(f"-p{plugin}" for plugin in PLUGINS),
            "-pno:cacheprovider",
            "--quiet",
            "--tb=line",
            f"--hypothesis-profile={self.profile}",
            f"--implementation={','.join(self.targets)}",
            f"--run={self.run}",
        ]
        for option in RUN_OPTIONS:
            options += option.said(getattr(self, option.field))
        return options + (["-pxdist", f"--numprocesses={self.workers}", "--dist=worksteal"] if self.workers > 1 else [])


UNWRITABLE = re.compile(
    r"INTERNALERROR> .*properties\.run\.run_folder\.Unwritable: (.*)"
)  # how a traceback of pytest's own says it


@dataclass(frozen=True)
class Ended:
    """How a pytest run ended: its exit code (https://docs.pytest.org/en/stable/reference/exit-codes.html), and what it printed."""

    code: int
    output: str

    @property
    def refusal(self) -> str | None:
        """The usage error that pytest reported, in its words, or what could not be written to the run's folder."""
        lines = self.output.splitlines()
        unwritten = [found[1] for line in lines if (found := UNWRITABLE.match(line))]
        if self.code == 3 and unwritten:
            return unwritten[0]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        return errors[-1] if self.code == 4 and errors else None


def run(request: Request, progress: Progress = lambda: None, folder: Path | None = None) -> Ended:
    """Run pytest to its end in `folder` (None: here), calling `progress` now and then.

    Whatever is raised meanwhile, an interrupt say, ends it at once. Nothing is lost: a verdict is on disk as soon as it is found.
    """
    from veriformer.isolation.processes import handed_over

    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    if request.workers > 1:
        environment.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    command = [sys.executable, "-P", "-m", "pytest", *request.arguments()]
    ours = handed_over() if request.workers == 1 else nullcontext({"env": {}, "pass_fds": []})  # several could not share one
    with ours as more, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "cwd": folder, "pass_fds": more["pass_fds"]}
        with started(command, env=environment | more["env"], **options) as process:
            while process.poll() is None:
                progress()
                time.sleep(PAUSE)
        progress()
        output.seek(0)
        return Ended(process.returncode, output.read())


def workers(device: str) -> int:
    """How many processes pay: one a core where calls are short and on the CPU, at most four; one on another device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4) if device == "cpu" else 1
