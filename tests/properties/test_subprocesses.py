"""`properties.run.subprocesses`: who stands above a process of ours, and what that is good for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from properties.run import subprocesses
from properties.run.subprocesses import run, started

ROOT = Path(__file__).resolve().parents[2]
SLEEPS = [sys.executable, "-c", "import time; time.sleep(100)"]
ORPHAN = "setsid sleep 100 > /dev/null 2>&1 & echo $!"  # of a shell that ends: of another session, and of no parent


def alive(pid: int) -> bool:
    """Whether a process is at work."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(true, seconds: float = 10.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(true())


def python(code: str, **options) -> subprocess.Popen:
    """A program that prints a number of a process, and may print more."""
    code = f"import os, signal, sys, threading, time\nfrom properties.run import subprocesses\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def printed(process: subprocess.Popen) -> int:
    """The next line, a number."""
    assert process.stdout
    return int(process.stdout.readline())


# A process that is started ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ended", "words"),
    [
        ("pass", 0, "exited with code 0"),
        ("sys.exit(3)", 3, "exited with code 3"),
        ("os.kill(os.getpid(), 11)", -11, "was killed by SIGSEGV"),
        ("os.kill(os.getpid(), 9)", -9, "was killed by SIGKILL (out of memory?)"),
    ],
)
def test_a_process_ends_as_if_it_had_no_guard(code, ended, words):
    """With its exit code, or by its signal."""
    done = run([sys.executable, "-c", f"import os, sys; {code}"])

    assert done.returncode == ended
    assert subprocesses.ending(ended) == words


def test_a_command_that_does_not_exist_is_told_on_stderr():
    """As a shell does, with code 127."""
    done = run(["./nowhere"], stderr=subprocess.PIPE, text=True)

    assert done.returncode == 127
    assert "No such file" in done.stderr


def test_what_a_process_leaves_behind_ends_with_it():
    """Of another session, and without a parent."""
    done = run(["sh", "-c", ORPHAN], stdout=subprocess.PIPE, text=True)

    assert not alive(int(done.stdout))


def test_a_process_is_over_when_it_is_no_longer_wanted():
    """And all that it started, at once."""
    with started(["sh", "-c", f"{ORPHAN}; sleep 100"], stdout=subprocess.PIPE, text=True) as process:
        orphan = printed(process)
        assert alive(orphan)

    assert not alive(orphan)
    assert process.returncode == -signal.SIGKILL


def test_a_process_outlives_the_thread_that_started_it_and_not_the_process():
    """The kernel tells of the end of either."""
    parent = python(
        "threading.Thread(target=lambda: subprocesses.start(['sh', '-c', 'echo $$; exec sleep 100'])).start()\ntime.sleep(100)"
    )
    process = printed(parent)
    time.sleep(0.5)
    assert alive(process)

    parent.kill()
    parent.wait()

    assert until(lambda: not alive(process))


@pytest.mark.parametrize("system", ["linux", "another"])
def test_a_process_ends_with_whoever_started_it(system, tmp_path, monkeypatch):
    """Also where the kernel tells neither: there the guard looks."""
    guard = tmp_path / "guard.py"  # the file as a script, on a system of another name
    guard.write_text(f"import sys\nsys.platform = {system!r}\n" + Path(subprocesses.__file__).read_text(encoding="utf-8"))
    monkeypatch.setattr(subprocesses, "__file__", str(guard))
    above = "subprocesses.__file__ = sys.argv[1]\nprocess = subprocesses.start(['sh', '-c', 'echo $$; exec sleep 100'])\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import sys, time\nfrom properties.run import subprocesses\n{above}time.sleep(100)", guard],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    process = printed(parent)

    parent.kill()
    parent.wait()

    assert until(lambda: not alive(process))


def test_a_process_ends_with_its_guard():
    """Which nobody should kill."""
    with started(SLEEPS) as guard:
        assert until(lambda: psutil.Process(guard.pid).children())
        (process,) = psutil.Process(guard.pid).children()
        guard.kill()

        assert until(lambda: not alive(process.pid))


def test_descendants_are_found_without_proc(monkeypatch):
    """From what `ps` says, where there is no /proc."""
    with started(SLEEPS) as guard:
        assert until(lambda: psutil.Process(guard.pid).children())
        found = subprocesses._below(guard.pid)
        monkeypatch.setattr(sys, "platform", "another")

        assert subprocesses._below(guard.pid) == found == [psutil.Process(guard.pid).children()[0].pid]


# This very program -----------------------------------------------------------------------------------------------------


def test_a_guarded_program_returns_what_it_returns():
    """Its exit code, what it prints, and its exit handlers, once each."""
    process = python(
        "import atexit\natexit.register(print, 'at exit')\nprint('before')\n"
        "sys.exit(subprocesses.guarded(lambda: print('main') or 7))"
    )

    assert process.communicate()[0].split("\n") == ["before", "main", "at exit", ""]
    assert process.returncode == 7


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_program_puts_away_what_it_has(sent):
    """A second signal does not break that off."""
    process = python(
        "def main():\n"
        "    try:\n        print(os.getpid(), flush=True)\n        time.sleep(100)\n"
        "    finally:\n        time.sleep(0.3)\n        print('put away')\n"
        "subprocesses.guarded(main)",
        stderr=subprocess.PIPE,
    )
    printed(process)

    process.send_signal(sent)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate()

    assert said == "put away\n"
    assert errors == f"veriformer: interrupted by {sent.name}; what was finished is on disk\n"
    assert process.returncode == 128 + sent


def test_an_interrupt_that_is_ignored_stays_ignored():
    """As in the background of a script, where Ctrl-C is for others."""
    process = python(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "def main():\n    print(os.getpid(), flush=True)\n    time.sleep(2.0)\n    return 3\n"
        "sys.exit(subprocesses.guarded(main))",
        start_new_session=True,
    )
    printed(process)

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait() == 3


def test_a_guarded_program_that_crashes_is_told():
    """Its guard killed is such a crash, and leaves nobody either."""
    process = python(
        f"def main():\n    os.system({ORPHAN!r})\n"
        "    print(os.getpid(), flush=True)\n    print(os.getppid(), flush=True)\n    time.sleep(100)\n"
        "subprocesses.guarded(main)",
        stderr=subprocess.PIPE,
    )
    orphan, main, guard = (printed(process) for _ in range(3))
    assert psutil.Process(guard).ppid() == process.pid

    os.kill(guard, signal.SIGKILL)
    errors = process.communicate()[1]

    assert errors == "veriformer: was killed by SIGKILL (out of memory?)\n"
    assert process.returncode == 128 + signal.SIGKILL
    assert not any(map(alive, (orphan, main)))
