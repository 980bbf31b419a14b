"""What was started ends with who started it: above every process of ours stands a guard.

    who starts it ── its guard ── the process ── whatever that starts: valgrind, compilers, workers of pytest or joblib

A guard does nothing but wait. When its process has ended, when whoever started it is gone (killed, too), or when it is asked to,
it kills all that is left below it and ends as its process did. Nobody below has to listen: a process in the middle of a call that
holds Python's lock goes like any other. On Linux a guard adopts whom a process below it leaves behind (prctl(2), subreaper), so
that what made itself a session of its own, or lost its parent, is found as well.

Stands alone (standard library): a guard is this file as a script, `python -I -S subprocesses.py PARENT COMMAND…`.
"""

import ctypes
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
ASKED = (signal.SIGINT, signal.SIGTERM)
GRACE = 1.5  # seconds that an interrupted program has to put away what it finished; after two nothing is left of it
MOST = 5.0  # seconds to wait for the dead: the kernel may be busy with their memory, and who became another user cannot be killed
LOOK = 0.2  # seconds between two looks at a parent whose end the system does not tell


class Interrupted(SystemExit):
    """SIGINT or SIGTERM has come to a program under `guarded`; its exit code is what a shell makes of that: 130 or 143."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)


# A process that is started ---------------------------------------------------------------------------------------------


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen:
    """A process that ends with this one, in a session of its own (Ctrl-C is for who started it). `options` are Popen's.

    Its exit code is the command's; `end` it, rather than to kill its guard.
    """
    guard = (sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()))
    return subprocess.Popen([*guard, *map(str, command)], start_new_session=True, **options)


def end(process: subprocess.Popen) -> None:
    """Have a process of `start`, and all that it started, be over."""
    process.terminate()
    process.wait()


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen]:
    """A process of `start` for as long as it is wanted."""
    process = start(command, **options)
    try:
        yield process
    finally:
        end(process)


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess:
    """As `subprocess.run`, with a process of `start`."""
    with started(command, **options) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def ending(code: int) -> str:
    """How a process ended, in words, from its exit code as subprocess gives it."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


# This very program -----------------------------------------------------------------------------------------------------


def guarded(main: Callable[[], Any]) -> Any:
    """What `main` returns, in a fork of this process with a guard above it. This process waits for it, and never comes back.

    SIGINT and SIGTERM are raised in `main`, once, as Interrupted; if it is not over soon it is killed. Call it before anything
    has started threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    heard = [number for number in ASKED if signal.getsignal(number) is not signal.SIG_IGN]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *heard})
    first = os.getpid()
    if guard := os.fork():
        _wait_for(guard, heard)
    _become_guard(first, heard, GRACE)
    _raise_once(heard)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return main()


def _wait_for(guard: int, heard: Sequence[signal.Signals]) -> None:
    """Pass on what comes; end as the guard does, with a line where that was not of its own accord."""
    _adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    came, codes = 0, {}
    while guard not in codes:
        if (number := signal.sigwait({signal.SIGCHLD, *heard})) == signal.SIGCHLD:
            _reap(codes)
        else:
            came = came or number
            os.kill(guard, number)
    _end_all_below()  # nobody, unless the guard itself was killed
    code = codes[guard]
    told = f"interrupted by {signal.Signals(came).name}; what was finished is on disk" if came else ending(code)
    if came or code < 0:
        with suppress(OSError):
            print(f"veriformer: {told}", file=sys.stderr, flush=True)
    os._exit(128 + came if came else code if code >= 0 else 128 - code)


def _raise_once(heard: Sequence[signal.Signals]) -> None:
    """A second signal would break off what the first has had put away: Ctrl-C comes from the terminal, and from the guard."""

    def interrupt(number: int, _: object) -> None:
        for each in heard:
            signal.signal(each, lambda *_: None)
        raise Interrupted(number)

    for number in heard:
        signal.signal(number, interrupt)


# The guard -------------------------------------------------------------------------------------------------------------


def _become_guard(parent: int, heard: Sequence[signal.Signals], grace: float) -> None:
    """Go on in a child, with a guard in this process, which never comes back; the child has `grace` after a signal `heard`."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _adopt_orphans()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)  # comes also when only a thread of the parent ends
    else:
        signal.setitimer(signal.ITIMER_REAL, LOOK, LOOK)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        die_with(guard)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    codes: dict[int, int] = {}
    until = math.inf
    while child not in codes and os.getppid() == parent and time.monotonic() < until:
        if (number := signal.sigwait(signal.valid_signals())) == signal.SIGCHLD:
            _reap(codes)
        elif number in heard:
            os.kill(child, number)
            until = min(until, time.monotonic() + grace)
            signal.setitimer(signal.ITIMER_REAL, grace, LOOK)
    _end_all_below()
    _end_as(codes.get(child, -signal.SIGKILL))


def die_with(parent: int) -> None:
    """Have this process end when its parent does, which has one thread only: where the system can, it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _reap(codes: dict[int, int]) -> bool:
    """Note the exit codes of all children that have ended; whether there are others."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        return False
    return True


def _end_all_below() -> None:
    """Kill whatever descends from this process, until it has no child: whom a killed one leaves behind becomes its own."""
    until = time.monotonic() + MOST
    while _reap({}) and time.monotonic() < until:
        for process in _below(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def _below(root: int) -> list[int]:
    """All descendants of a process."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found[1:]


def _parents() -> Iterator[tuple[int, int]]:
    """Every process there is, and its parent."""
    if sys.platform != "linux":
        for line in subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True).stdout.splitlines():
            process, parent = line.split()
            yield int(process), int(parent)
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            yield int(stat.parent.name), int(stat.read_bytes().rpartition(b")")[2].split()[1])


def _end_as(code: int) -> None:
    """End with this exit code, or by this signal."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os._exit(code)


if __name__ == "__main__":
    _become_guard(int(sys.argv[1]), ASKED, grace=0.0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and whoever it starts would
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 (no shell: that is the point)
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(127)
