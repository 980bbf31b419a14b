"""The implementation's process, from outside: how it is started, asked, watched and ended. `worker` is the inside."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from json import dumps, loads
from pathlib import Path
from typing import Any

from properties.implementations import returned
from properties.run.subprocesses import end, ending, start
from veriformer.isolation import wire
from veriformer.packages import their_environment

CANDIDATE = Path(__file__).with_name("worker.py")
OURS = {str(CANDIDATE), wire.__file__, returned.__file__}
START_TIME = 120.0  # seconds a zygote may take to import torch
LOG_KEPT = 4096  # bytes of the implementation's last output that are kept to be quoted

STACK = re.compile(r"Fatal Python error|Stack \(most recent|Current thread 0x")


class Worker:
    """A process with one implementation in it: its connection, and the pipe its stdout and stderr end in."""

    def __init__(self, pid: int, connection: socket.socket, log: int, reap: Callable[[int, float], dict[str, Any]]) -> None:
        self.pid, self._connection, self._log = pid, connection, log
        self._printed = bytearray()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(log, select.POLLIN)
        self._finish = weakref.finalize(self, _finish, pid, connection, log, reap, os.getpid())

    def ask(self, request: bytes, limit: float) -> dict[str, Any]:
        """Send and wait. Raises TimeoutError after `limit` seconds, EOFError when the process is gone."""
        deadline = time.monotonic() + limit
        self._connection.settimeout(limit)
        try:
            self._connection.sendall(request)
            return wire.receive(lambda count: self._read(count, deadline))
        except ConnectionError as error:
            raise EOFError from error

    def _read(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for descriptor, _ in self._poll.poll(1000 * left):
                if descriptor == self._log:
                    self._drain()
                elif got < count and (new := self._connection.recv_into(view[got:])):
                    got += new
                else:
                    raise EOFError
        return data

    def _drain(self) -> bool:
        """Read what the implementation printed (a full pipe would block it); whether there may be more."""
        if new := os.read(self._log, 65536):
            self._printed = (self._printed + new)[-LOG_KEPT:]
        else:
            self._poll.unregister(self._log)  # closed by the implementation
        return bool(new)

    def interrupt(self) -> None:
        """Have the process print the line it is in, and wait for that a moment."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        _readable(self._log, 0.2)

    def last_tokens(self) -> tuple[str, str]:
        """Where it was (`file:line in function`, from the stack faulthandler prints) and the last lines printed before that."""
        until = time.monotonic() + 0.5  # it may be printing without end
        while time.monotonic() < until and _readable(self._log, 0.01) and self._drain():
            pass
        printed, stack, *_ = [*STACK.split(self._printed.decode(errors="replace"), maxsplit=1), ""]
        frames = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', stack)
        own = [frame for frame in frames if "/lib/python" not in frame[0] and frame[0] not in OURS]
        place = next((f"{Path(file).name}:{line} in {function}" for file, line, function in own), "")
        return place, returned.printable(" / ".join(line.strip() for line in printed.splitlines()[-3:])[-300:])

    def exit_code(self) -> int | None:
        """The code that the process ended with by itself, as subprocess gives it; None where it had to be ended."""
        if (finish := self._finish.detach()) is None:
            return None
        _, function, args, _ = finish
        found = function(*args, grace=5.0)
        return None if found["ended_by_us"] else found["code"]

    def end(self) -> str:
        """In words, how the process ended by itself."""
        code = self.exit_code()
        return "closed its connection" if code is None else ending(code)

    @property
    def open(self) -> bool:
        """Whether it has not been ended or closed."""
        return self._finish.alive

    def close(self) -> None:
        """Kill the process and whatever it started."""
        self._finish()


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _finish(
    pid: int,
    connection: socket.socket,
    log: int,
    reap: Callable[[int, float], dict[str, Any]],
    owner: int,
    *,
    grace: float = 0.0,
) -> dict[str, Any] | None:
    connection.close()
    os.close(log)
    return reap(pid, grace) if os.getpid() == owner else None  # a fork of ours has no business with it


class Zygote:
    """A process that has imported numpy, and torch if it can, and does nothing but fork."""

    def __init__(self, *, with_torch: bool) -> None:
        self._control, theirs = socket.socketpair()
        threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        command = [sys.executable, "-P", str(CANDIDATE), str(theirs.fileno()), "torch" if with_torch else "numpy"]
        with theirs:
            process = start(
                command,
                env=their_environment() | threads,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._ready = False
        self.close = weakref.finalize(self, _close_zygote, self._control, process, os.getpid())
        self._control.settimeout(START_TIME)

    @property
    def alive(self) -> bool:
        """Whether it can still fork: its end of the socket is open."""
        return not _readable(self._control.fileno(), 0) or bool(self._control.recv(1, socket.MSG_PEEK))

    def _reply(self) -> dict[str, Any]:
        data = self._control.recv(4096)
        if not data:
            raise RuntimeError(f"{sys.executable} {CANDIDATE.name} has ended")
        return loads(data)

    def fork(self) -> Worker:
        """A new worker. The first one waits until everything is imported."""
        if not self._ready:
            self._ready = bool(self._reply())
        connection, theirs = socket.socketpair()
        log, their_log = os.pipe()
        with theirs:
            socket.send_fds(self._control, [b"{}"], [theirs.fileno(), their_log])
            os.close(their_log)
            pid = self._reply()["pid"]
        return Worker(pid, connection, log, self.reap)

    def reap(self, pid: int, grace: float) -> dict[str, Any]:
        """Wait `grace` seconds for a worker to end, then kill it: its exit code as subprocess gives it, and whether we ended it."""
        if not self.alive:  # and with it its workers
            return {"code": -signal.SIGKILL, "ended_by_us": True}
        self._control.sendall(dumps({"reap": pid, "grace": grace}).encode())
        return self._reply()


def _close_zygote(control: socket.socket, process: subprocess.Popen[bytes], owner: int) -> None:
    control.close()
    if os.getpid() == owner:
        end(process)


_zygotes: dict[bool, Zygote] = {}


def zygote(*, with_torch: bool) -> Zygote:
    """The zygote of this process, started when first needed."""
    found = _zygotes.get(with_torch)
    if found is None or not found.alive:
        found = _zygotes[with_torch] = Zygote(with_torch=with_torch)
    return found
