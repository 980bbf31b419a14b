"""pytest is the engine: a request to verify becomes a pytest run of our properties, in a process of its own.

Neither the user's conftest, configuration or environment nor any plugin we do not name takes part: the same request means the
same run everywhere.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from veriformer import packages
from veriformer.packages import ROOT
from veriformer.run_options import RunOptions

if TYPE_CHECKING:
    from properties.run import subprocesses
else:
    subprocesses = packages.standing_alone("properties.run.subprocesses")

PLUGINS = ("veriformer", "hypothesispytest")
PROFILES = ("quick", "ci", "nightly")
NOT_INHERITED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "HYPOTHESIS_PROFILE")
PAUSE = 0.2  # seconds between two looks at what is finished
TAIL = 15  # lines of pytest's own output, where it did not get as far as a verdict

Progress = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Request(RunOptions):
    """What is to be verified, and how hard to look."""

    targets: tuple[str, ...]
    run: Path
    profile: str = "ci"
    workers: int | Literal["auto"] = 1  # auto: as many as pay, which `veriformer.workers` knows once it has the targets

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
            *self.said(),
        ]
        if self.workers == "auto":
            options.append("-pveriformer.workers")
        return options + (["-pxdist", f"--numprocesses={self.workers}", "--dist=worksteal"] if self.workers != 1 else [])


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

    @property
    def tail(self) -> str:
        """The end of what was printed."""
        return "\n".join(self.output.splitlines()[-TAIL:])


def run(request: Request, progress: Progress = lambda: None, folder: Path | None = None) -> Ended:
    """Run pytest to its end in `folder` (None: here), calling `progress` now and then.

    Whatever is raised meanwhile, an interrupt say, ends it at once. Nothing is lost: a verdict is on disk as soon as it is found.
    """
    environment = {name: value for name, value in packages.our_environment().items() if name not in NOT_INHERITED}
    if request.workers not in (1, "auto"):
        environment.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    command = [sys.executable, "-P", "-m", "pytest", *request.arguments()]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "cwd": folder}
        with subprocesses.started(command, env=environment, **options) as process:
            while process.poll() is None:
                progress()
                time.sleep(PAUSE)
        progress()
        output.seek(0)
        return Ended(process.returncode, output.read())
