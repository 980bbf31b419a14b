"""What was started ends with who started it: every command, ended in the middle of a call that never returns, leaves nobody behind.

`pytest tests/veriformer/test_ends.py -s` prints how long each took to be gone: two seconds at most on an idle
machine.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from properties.run import run_folder
from reports import records
from veriformer import engine, shards

PATIENCE = 10.0  # seconds, where the machine has
MARK = "VERIFORMER_TEST"  # a variable in the environment of all that is started here, whoever its parent is by now

HANGS = '''
"""Python imports this when it starts: a process holds its lock for ever when it comes to what $VERIFORMER_TEST_HANGS names."""
import ctypes, os, pathlib, sys

def hang():
    pathlib.Path(os.environ["VERIFORMER_TEST"], "hangs").write_text(str(os.getpid()))
    lock, locked = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)  # by PyDLL Python's lock is kept
    lock(locked), lock(locked)

module, _, process = os.environ.get("VERIFORMER_TEST_HANGS", "").partition(" in ")
if module and process in " ".join(sys.orig_argv):
    sys.addaudithook(lambda event, args: hang() if event == "import" and args[0] == module else None)
'''

MINE = '''
import torch
from sitecustomize import hang

calls = 0

def softmax(scores):
    """Right, for a while."""
    global calls
    calls += 1
    if calls > 20:
        hang()
    return torch.softmax(scores, dim=-1).nan_to_num(0.0)

def softmax_of_few(scores):
    """Right for up to three keys."""
    if scores.shape[-1] > 3:
        hang()
    return torch.softmax(scores, dim=-1).nan_to_num(0.0)

def model():
    hang()
'''


class Case(NamedTuple):
    """A command; the module at whose import it hangs, and in which process (none: in code of mine.py); what is on disk by then."""

    command: str
    hangs: str = ""
    kept: str = ""


TWO = "softmax.8x8x64@b=1+h=1+n=4+m=3,softmax.8x8x64@b=1+h=1+n=8+m=8"
SOFTMAX = f"--workloads {TWO} --peers mine:softmax_of_few --as softmax --run run"
LOKY, XDIST = "torch in loky", "torch in exec(eval("  # in the workers of joblib and of pytest-xdist
COMMANDS = {
    "verify": Case("verify mine:softmax --dtype float32 --max-time 600 --run run", kept="run/verify.jsonl"),
    "bench": Case(f"bench {SOFTMAX} --baseline mine:softmax_of_few --threads 1", kept="run/bench.jsonl"),
    "bench --counters": Case(f"bench --counters {SOFTMAX}", "torch in bench.counters.counting", kept="run/manifest.json"),
    "bench --self-test": Case("bench --self-test --run run", "bench.runner.clock in self_test.process"),
    "report": Case("report --run run", XDIST),
    "run": Case("run ../plan.json --run run", XDIST, kept="run/plan.json"),
    "localize": Case("localize mine:model"),
    "repro": Case("repro A5-mine --run .."),
    "doctor": Case("doctor", "torch in bench.runner.worker"),
    "score": Case("score --jobs 2 --run run", LOKY, kept="run/made_with.json"),
    "calibrate": Case("calibrate --jobs 2 --quick --run run", LOKY),
    "python -m properties.evaluation.detection.scripts": Case("properties.evaluation.detection.scripts --jobs 2 --into run", LOKY),
}

OTHERS = {
    "veriformer.verify": ["-c", "import mine, veriformer; veriformer.verify(mine.softmax, max_time=600)"],
    "pytest": ["-m", "pytest", "--pyargs", "properties", "--implementation=mine:softmax", "--max-time=600", "--dtype=float32"],
}
"""Programs of the user's own that our processes are started by."""

SENT = [
    *zip(COMMANDS, cycle((signal.SIGTERM, signal.SIGINT)), strict=False),
    *((name, signal.SIGKILL) for name in ("verify", "bench --counters", "report", "localize", "score")),
]
"""What each command is sent. One signal that it could hear: what both come to is the same code (`properties.run.subprocesses`,
whose tests send both). SIGKILL, of which no code of the command's sees anything, where the processes below it are started in
another way.
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A user's folder: an implementation, a plan to verify it, a counterexample; and what makes Python hang."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "sitecustomize.py").write_text(HANGS, encoding="utf-8")
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    (folder / "counterexamples").mkdir()
    (folder / "counterexamples" / "A5-mine.py").write_text("import mine\nmine.model()\n", encoding="utf-8")
    request = engine.Request(targets=("mine:softmax",), run=folder, dtypes=("float32",))
    verify = {name: value for name, value in vars(request).items() if name not in shards.OF_A_MACHINE}
    shards.Plan(run_folder.SCHEMA, run_folder.code_hash(), verify, [{"claim": "A5"}], None, []).write(folder / "plan.json")
    return folder


def at_work(mark: Path) -> list[psutil.Process]:
    """Every process that was started, directly or not, and has not ended: of any session, of any parent."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has ended, or is not ours to look at
            continue
    return found


def until(true, seconds: float) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


@contextmanager
def hanging(arguments: list[str], folder: Path, scratch: Path, hangs: str = ""):
    """A program in the middle of a call that never returns; what it prints is in `folder`/said."""
    # Under `nohup` the tests ignore an interrupt, and would have whom they start do so.
    command = ["env", "--default-signal=INT,TERM", sys.executable, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {MARK: str(folder), f"{MARK}_HANGS": hangs, "PYTHONPATH": str(scratch), "OMP_NUM_THREADS": "1"}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        assert until(lambda: _hangs_in(folder) or process.poll() is not None, 120), (folder / "said").read_text()
        assert _hangs_in(folder) in {each.pid for each in at_work(folder)}, (folder / "said").read_text()
        yield process
    finally:
        for each in [*at_work(folder), process]:
            each.kill()
        process.wait()


def _hangs_in(folder: Path) -> int:
    """The process that hangs; 0 as long as none does."""
    path = folder / "hangs"
    return int((path.read_text() if path.exists() else "") or 0)


def end(process: subprocess.Popen, folder: Path, sent: signal.Signals) -> float:
    """Send the signal, an interrupt to all whom a terminal sends it to; the seconds until nobody is at work."""
    began = time.monotonic()
    (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
    gone = until(lambda: not at_work(folder), PATIENCE)
    took = time.monotonic() - began
    assert gone, [each.cmdline() for each in at_work(folder)]
    process.wait()
    return took


@pytest.mark.parametrize(("name", "sent"), SENT, ids=lambda each: each.name if isinstance(each, signal.Signals) else each)
def test_a_command_leaves_nobody_at_work(name, sent, scratch):
    """Whoever hangs holds Python's lock. What was finished is on disk; a signal is one line, and the exit code a shell expects."""
    case, folder = COMMANDS[name], Path(tempfile.mkdtemp(dir=scratch))
    tokens = shlex.split(case.command)

    with hanging(["-m", *(tokens if "." in tokens[0] else ["veriformer", *tokens])], folder, scratch, case.hangs) as process:
        print(f"{name}, {sent.name}: {end(process, folder, sent):.1f} s")

        said = (folder / "said").read_text(encoding="utf-8")
        assert process.returncode == (-sent if sent == signal.SIGKILL else 128 + sent), said
        assert said.count(f"veriformer: interrupted by {sent.name}; what was finished is on disk") == (sent != signal.SIGKILL)
        assert "Traceback" not in said
        assert not case.kept or (folder / case.kept).exists()
        if case.kept.endswith(".jsonl"):
            assert records.finished(folder / case.kept)


@pytest.mark.parametrize("name", OTHERS)
def test_a_program_of_the_users_leaves_none_of_ours_at_work(name, scratch):
    """Killed, it can end nobody."""
    folder = Path(tempfile.mkdtemp(dir=scratch))

    with hanging(OTHERS[name], folder, scratch) as process:
        print(f"{name}, SIGKILL: {end(process, folder, signal.SIGKILL):.1f} s")
