"""The parent's side of a user's implementation: an adapter whose calls are answered by a process of its own.

A crash, `os._exit`, a hang or exhausted memory is an exception about the candidate, raised here, where Hypothesis can shrink
the input that caused it; the next call gets a new process. `veriformer.candidate` is the other end.
"""

import contextlib
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from json import dumps, loads
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np

from properties.steps import STEPS
from properties.verdicts import CandidateCrash, CandidateError, CandidateTimeout, record
from veriformer import candidate

DTYPES = {"torch": ("float64", "float32", "bfloat16", "float16"), "numpy": ("float64", "float32", "float16")}
LAYOUTS = ("contiguous", *candidate.LAYOUTS)
START_TIME = 120.0  # seconds a zygote may take to import torch
LOG_KEPT = 4096  # bytes of the candidate's last output that are kept to be quoted

STACK = re.compile(r"Fatal Python error|Stack \(most recent|Current thread 0x")

Failure = tuple[type[Exception], str]


class TargetError(ValueError):
    """The target cannot be tested as asked: a usage error (exit code 2), in one line saying what was expected and what came."""


class CandidateProxy:
    """The implementation `target` names (`module:attribute`, `file.py:attribute`, `module`), as an adapter (see INTERFACES).

    A class is instantiated without arguments and offers its methods named after steps, a module its functions; a callable is
    the step of its own name, or `step`. `arrays` None: what the candidate says itself, else torch. One object lives in the
    child through all calls until it has to be replaced. A target that crashes or hangs while it is imported is an adapter too:
    each of its calls says so. `path`: further folders to import from, after the current one.
    """

    isolated = True

    def __init__(
        self,
        target: str,
        step: str | None = None,
        arrays: str | None = None,
        device: str = "cpu",
        max_time: float = 10.0,
        *,
        import_time: float = 60.0,
        path: Sequence[str] = (),
    ) -> None:
        if step is not None and step not in STEPS:
            raise TargetError(f"step: expected one of {', '.join(STEPS)}, got {step!r}")
        if arrays not in (None, *DTYPES):
            raise TargetError(f"arrays: expected torch or numpy, got {arrays!r}")
        if not (max_time > 0 and import_time > 0):
            raise TargetError(f"max_time: expected a number of seconds above 0, got {min(max_time, import_time)}")
        self.name, self.target, self.device = target, target, device
        self._greeting = {
            "target": target,
            "step": step,
            "arrays": arrays,
            "known_steps": list(STEPS),
            "folder": str(Path.cwd()),
            "path": list(path),
        }
        self._import_time = max_time if max_time > import_time else import_time
        self._losses = Losses(max_time)
        self._broken: Failure | None = None  # it cannot be imported without dying
        self._worker: Worker | None = None
        card = self._greet()
        self.arrays: str = card.get("arrays", arrays or "torch")
        self.steps: frozenset[str] = frozenset(card.get("steps", self._steps_it_would_offer()))
        self.dtypes: tuple[str, ...] = self._supported(card.get("dtypes"))
        self.conventions = _conventions(target, card.get("conventions"))
        self.taps: bool = card.get("taps", False)
        self.training: bool = card.get("training", False)

    def __repr__(self) -> str:
        return f"CandidateProxy({self.name})"

    def __enter__(self) -> "CandidateProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the candidate's process; a later call would start a new one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def call(
        self,
        step: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        dtype: str,
        device: str | None = None,
        *,
        layout: str | None = None,
    ) -> Any:
        """What `step` returns for these arguments (float64, bool and int64 arrays), as a float64, bool or int64 array.

        Raises CandidateError (`.raised` tells whether it is an exception of the candidate's own), CandidateTimeout and
        CandidateCrash, each from one line, since Hypothesis takes another line for another bug. The shape is not checked here.
        """
        answer = self.answer(step, args, kwargs, dtype, device, layout=layout)
        if answer["changed"]:
            raise CandidateError(f"{self._label(step)} changed its input {', '.join(answer['changed'])} in place")
        return self._values(step, answer, dtype, nested=STEPS[step].kind == "nested")

    def tap(self, name: str, dtype: str) -> np.ndarray:
        """The intermediate matrix `name` of the last call, from the candidate's own `tap(name)`."""
        return self._values("tap", self.answer("tap", (name,), {}, dtype), dtype, nested=False)

    def answer(
        self,
        step: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        dtype: str,
        device: str | None = None,
        *,
        layout: str | None = None,
    ) -> dict[str, Any]:
        """The candidate's answer as it came, unchecked.

        Keys: kind (tensor, array, nested, plain, other), type, dtype, shape, values (or items, for nested), changed and shares (the
        names of the inputs it changed, and of those whose memory the result is a view of).
        """
        if dtype not in DTYPES[self.arrays]:
            hint = " (numpy has no bfloat16)" if dtype == "bfloat16" else ""
            raise TargetError(f"{self.name}: expected a dtype of {', '.join(DTYPES[self.arrays])}, got {dtype}{hint}")
        if layout not in (None, *LAYOUTS):
            raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
        if step == "positional_encoding":
            kwargs = {**kwargs, "dtype": {"@dtype": dtype}}
        request = candidate.encode(
            {
                "step": step,
                "args": [_widened(value) for value in args],
                "kwargs": _widened(kwargs),
                "names": _positional_names(step, len(args)),
                "dtype": dtype,
                "device": device or self.device,
                "layout": layout,
            }
        )
        answer = self._answer(step, request)
        if isinstance(answer, tuple):
            kind, text = answer
            failure = kind(text)
            failure.raised = kind is CandidateError  # type: ignore[attr-defined]
            raise failure
        return answer

    # ---- one call, and what may become of it ----

    def _answer(self, step: str, request: bytes) -> dict[str, Any] | Failure:
        digest = hashlib.blake2b(request, digest_size=16).digest()
        if failure := self._broken or self._losses.known(digest):
            return failure
        if self._losses.ration_is_used_up_for(digest):
            hypothesis.reject()
        if self._worker is None:
            self._greet()
            if self._broken:
                return self._broken
        assert self._worker
        began, limit = time.monotonic(), self._losses.limit(step)
        try:
            answer = self._worker.ask(request, limit)
        except TimeoutError:
            failure = CandidateTimeout, f"{self._label(step)} did not answer within {limit:g} s{self._last_line(hung=True)}"
        except EOFError:
            failure = CandidateCrash, f"{self._label(step)} {self._end_of_worker('during the call')}"
        else:
            self._losses.answered(step, digest, time.monotonic() - began)
            return self._told(step, answer) if "raised" in answer else answer
        self._losses.lost(step, digest, failure, time.monotonic() - began)
        return failure

    def _greet(self) -> dict[str, Any]:
        """Start a worker and let it import the target: what that says about itself, {} where it died or hung (`_broken`)."""
        began = time.monotonic()
        try:
            self._worker = _zygote(with_torch=self._greeting["arrays"] != "numpy").fork()
            card = self._worker.ask(candidate.encode(self._greeting), self._import_time)
        except TimeoutError:
            place = self._last_line(hung=True)
            self._broken = CandidateTimeout, f"{self.name} was not imported within {self._import_time:g} s{place}"
            return {}
        except EOFError:
            self._broken = CandidateCrash, f"{self.name} {self._end_of_worker('while it was imported')}"
            return {}
        if "refused" in card:
            self.close()
            raise TargetError(card["refused"])
        self._losses.restarted(time.monotonic() - began)
        return card

    def _end_of_worker(self, when: str) -> str:
        assert self._worker
        place = self._last_line()
        end, self._worker = self._worker.end(), None
        return f"{end} {when}{place}"

    def _last_line(self, *, hung: bool = False) -> str:
        """Where the worker hung or crashed, and what it printed last; a worker that hangs is ended by this."""
        assert self._worker
        if hung:
            self._worker.interrupt()
        place, printed = self._worker.last_words()
        if hung:
            self.close()
        return (f" ({place})" if place else "") + (f"; its last output: {printed}" if printed else "")

    def _told(self, step: str, answer: dict[str, Any]) -> Failure:
        where = f" ({answer['where']})" if answer["where"] else ""
        if "CUDA error" in answer["message"]:
            self.close()  # after one, every call on this device fails: the next call gets a process with a new context
        return CandidateError, f"{self._label(step)} raised {answer['raised']}: {answer['message']}{where}"

    def _label(self, step: str) -> str:
        return self.name if self.steps == {step} else f"{self.name}.{step}"

    def _values(self, step: str, answer: dict[str, Any], dtype: str, *, nested: bool) -> Any:
        """The values of an answer of the right type and dtype."""
        if nested and answer["type"] == "NoneType":
            return None
        if nested and answer["kind"] == "plain":
            return answer["value"]
        if nested and answer["kind"] == "nested":
            if isinstance(answer["items"], list):
                return [self._values(step, item, dtype, nested=True) for item in answer["items"]]
            return {name: self._values(step, item, dtype, nested=True) for name, item in answer["items"].items()}
        kind, type_name = {"torch": ("tensor", "torch.Tensor"), "numpy": ("array", "numpy.ndarray")}[self.arrays]
        if answer["kind"] != kind:
            raise CandidateError(f"{self._label(step)}: expected a {type_name}, got {answer['type']}")
        promised = {"bool": "bool", "int": "int64"}.get(STEPS[step].kind if step in STEPS else "float", dtype)
        if answer["dtype"] != promised or answer["values"] is None:
            raise CandidateError(f"{self._label(step)}: expected a result of dtype {promised}, got {answer['dtype']}")
        return answer["values"]

    def _steps_it_would_offer(self) -> set[str]:
        """For a target that dies when it is imported: the one step it is asked for, or all, so that every claim says why."""
        name = self._greeting["step"] or self.target.rpartition(":")[2]
        return {name} if name in STEPS else set(STEPS)

    def _supported(self, declared: list[str] | None) -> tuple[str, ...]:
        possible = DTYPES[self.arrays]
        if declared is not None and (unknown := [dtype for dtype in declared if dtype not in possible]):
            raise TargetError(f"{self.name}: dtypes: expected some of {', '.join(possible)}, got {', '.join(unknown)}")
        return possible if declared is None else tuple(dtype for dtype in possible if dtype in declared)


def _conventions(target: str, declared: dict[str, Any] | None) -> Any:
    try:
        from properties.conventions import Conventions
    except ModuleNotFoundError:
        return declared
    try:
        return Conventions(**(declared or {}))
    except (TypeError, ValueError) as error:
        raise TargetError(f"{target}: conventions: {error}") from error


def _widened(value: Any) -> Any:
    """Arrays as the wire takes them: float64, bool or int64."""
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_widened(item) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    wide = {"f": np.float64, "b": np.bool_, "i": np.int64, "u": np.int64}[value.dtype.kind]
    return np.asarray(value, wide)


def _positional_names(step: str, count: int) -> list[str]:
    """The names of the first arguments of `step`, from its signature, for a message about one of them."""
    arguments = re.sub(r"\([^)]*\)", "", STEPS[step].arguments) if step in STEPS else ""
    names = [name for part in arguments.split(",") if (name := part.split("=")[0].strip()) not in ("", "*")]
    return [*names, *(f"[{i}]" for i in range(len(names), count))][:count]


class Losses:
    """The inputs that cost the candidate its process.

    They are remembered, so that Hypothesis, which replays an input to confirm it, meets the same exception at once. And they
    are rationed, so that shrinking a hang ends: after a step has hung once for the full `max_time`, its limit drops to 20 times its
    slowest answer; after HANGS lost inputs to time or a ration of seconds within one property, inputs not seen before are
    rejected (`hypothesis.reject()`: the example does not count), while known ones answer or fail as they did.
    """

    HANGS = 15
    SECONDS = 20.0  # of one property; shared by the properties that lose time, so that a run of many ends too
    LEAST_SECONDS = 4.0
    LEAST_LIMIT = 0.5
    LIMIT_UNANSWERED = 1.0  # of a step that has hung and never answered

    def __init__(self, max_time: float) -> None:
        self.max_time = max_time
        self.failures: dict[bytes, Failure] = {}
        self.slowest: dict[str, float] = {}  # seconds of the slowest answer of each step
        self.hung: set[str] = set()
        self.properties = 0  # how many have lost time so far
        self._property: Any = None
        self._begin()

    def _begin(self) -> None:
        self.seen: set[bytes] = set()
        self.hangs, self.seconds = 0, 0.0

    def _current(self) -> None:
        if record.current is not self._property:  # another property is running
            self._property = record.current
            self._begin()

    def known(self, digest: bytes) -> Failure | None:
        """How this input failed before."""
        return self.failures.get(digest)

    def ration_is_used_up_for(self, digest: bytes) -> bool:
        """Whether to reject this input; never outside of Hypothesis."""
        self._current()
        ration = max(self.LEAST_SECONDS, self.SECONDS / max(1, self.properties))
        used_up = self.hangs > self.HANGS or self.seconds > ration
        return used_up and digest not in self.seen and hypothesis.currently_in_test_context()

    def limit(self, step: str) -> float:
        """How many seconds `step` may take now."""
        if step not in self.hung:
            return self.max_time
        slowest = self.slowest.get(step)
        return min(self.max_time, self.LIMIT_UNANSWERED if slowest is None else max(self.LEAST_LIMIT, 20 * slowest))

    def answered(self, step: str, digest: bytes, seconds: float) -> None:
        """This input was answered (with a result or an exception)."""
        self.seen.add(digest)
        self.slowest[step] = max(self.slowest.get(step, 0.0), seconds)

    def lost(self, step: str, digest: bytes, failure: Failure, seconds: float) -> None:
        """This input ended the worker. The first hang of a step takes `max_time`, which is not counted."""
        if not self.hangs and not self.seconds:
            self.properties += 1
        self.failures[digest] = failure
        if failure[0] is CandidateTimeout:
            self.hangs += 1
            seconds = seconds if step in self.hung else 0.0
            self.hung.add(step)
        self.seconds += seconds

    def restarted(self, seconds: float) -> None:
        """A new worker imported the target again: that counts too, where a target is slow to import."""
        if self.failures:
            self.seconds += seconds


class Worker:
    """A process with one candidate in it: its connection, and the pipe its stdout and stderr end in."""

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
            return candidate.receive(lambda count: self._read(count, deadline))
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
        """Read what the candidate printed (a full pipe would block it); whether there may be more."""
        if new := os.read(self._log, 65536):
            self._printed = (self._printed + new)[-LOG_KEPT:]
        else:
            self._poll.unregister(self._log)  # closed by the candidate
        return bool(new)

    def interrupt(self) -> None:
        """Have the process print the line it is in, and wait for that a moment."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        _readable(self._log, 0.2)

    def last_words(self) -> tuple[str, str]:
        """Where it was (`file:line in function`, from the stack faulthandler prints) and the last lines printed before that."""
        until = time.monotonic() + 0.5  # it may be printing without end
        while time.monotonic() < until and _readable(self._log, 0.01) and self._drain():
            pass
        printed, _, stack = STACK.sub("\0", self._printed.decode(errors="replace"), count=1).partition("\0")
        frames = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', stack)
        own = [frame for frame in frames if "/lib/python" not in frame[0] and frame[0] != candidate.__file__]
        place = next((f"{Path(file).name}:{line} in {function}" for file, line, function in own), "")
        return place, " / ".join(line.strip() for line in printed.splitlines()[-3:])[-300:]

    def end(self) -> str:
        """In words, how the process ended by itself."""
        if (finish := self._finish.detach()) is None:
            return "was ended"
        _, function, args, _ = finish
        end = function(*args, grace=5.0)
        if end["ended_by_us"]:
            return "closed its connection"
        if end["code"] >= 0:
            return f"exited with code {end['code']}"
        name = signal.Signals(-end["code"]).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

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
        command = [sys.executable, "-P", candidate.__file__, str(theirs.fileno()), "torch" if with_torch else "numpy"]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=os.environ | threads,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent
            )
        self.close = weakref.finalize(self, _close_zygote, self._control, self._process, os.getpid())
        self._control.settimeout(START_TIME)
        self._reply()

    @property
    def alive(self) -> bool:
        """Whether it can still fork."""
        return self._process.poll() is None

    def _reply(self) -> dict[str, Any]:
        data = self._control.recv(4096)
        if not data:
            raise RuntimeError(f"{sys.executable} {Path(candidate.__file__).name} ended with code {self._process.wait()}")
        return loads(data)

    def fork(self) -> Worker:
        """A new worker."""
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
        process.wait()


_zygotes: dict[bool, Zygote] = {}


def _zygote(*, with_torch: bool) -> Zygote:
    """The zygote of this process, started when first needed."""
    found = _zygotes.get(with_torch)
    if found is None or not found.alive:
        found = _zygotes[with_torch] = Zygote(with_torch=with_torch)
    return found
