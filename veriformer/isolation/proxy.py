"""The parent's side of a user's implementation: an adapter whose calls are answered by a process of its own.

A crash, `os._exit`, a hang or exhausted memory is an exception about the implementation, raised here, where Hypothesis can shrink
the input that caused it; the next call gets a new process. `veriformer.isolation.worker` is the other end.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import hypothesis
import numpy as np

from properties.conventions import declarations
from properties.implementations import layouts, returned
from properties.implementations.accepted import accepted
from properties.implementations.registry import library_missing, library_target
from properties.steps import OPTIONS, STEPS, offered_options, positional_names
from properties.verdicts import ImplementationCrash, ImplementationError, ImplementationTimeout, NotOffered
from veriformer.isolation import wire
from veriformer.isolation.losses import Failure, RestartPolicy
from veriformer.isolation.processes import Worker, zygote

DTYPES = {"torch": ("float64", "float32", "bfloat16", "float16"), "numpy": ("float64", "float32", "float16")}
LAYOUTS = (layouts.CONTIGUOUS, *layouts.LAYOUTS, layouts.REFILLED, layouts.ASKED_BEFORE)


class TargetError(ValueError):
    """The target cannot be tested as asked: a usage error (exit code 2), in one line saying what was expected and what came."""


class ImplementationProxy:
    """The implementation `target` names (`module:attribute`, `file.py:attribute`, `module`), as an adapter.

    What an adapter is stands in `properties.implementations.impl`. A class is instantiated without arguments and offers its
    methods named after steps, a module its functions; a callable is the step of its own name, or `step`. `arrays` None: what
    the implementation says itself, else torch. One object lives through all calls until it has to be replaced. A target
    that crashes or hangs while it is imported is an adapter too: each of its calls says so. `path`: further folders to import
    from, after the current one. `name`: what it is called, if not by its target. `backward`: what it offers forward alone, in
    torch, is offered backward too, by autograd.
    """

    isolated = True
    conventions: Any
    contract: Any
    domain: Any

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
        name: str = "",
        backward: bool = False,
    ) -> None:
        if step is not None and step not in STEPS:
            raise TargetError(f"step: expected one of {', '.join(STEPS)}, got {step!r}")
        if arrays not in (None, *DTYPES):
            raise TargetError(f"arrays: expected torch or numpy, got {arrays!r}")
        if not (max_time > 0 and import_time > 0):
            raise TargetError(f"max_time: expected a number of seconds above 0, got {min(max_time, import_time)}")
        self.name, self.target, self.device = name or target, target, device
        self._greeting = {
            "target": target,
            "step": step,
            "arrays": arrays,
            "known_steps": list(STEPS),
            "steps_with_options": list(OPTIONS),
            "folder": str(Path.cwd()),
            "path": list(path),
            "backward": backward,
        }
        self._import_time = max(max_time, import_time)
        self._losses = RestartPolicy(max_time)
        self._broken: Failure | None = None  # it cannot be imported without dying
        self._worker: Worker | None = None
        card = self._greet()
        self.arrays: str = card.get("arrays", arrays or "torch")
        self.steps: frozenset[str] = frozenset(card.get("steps", self._steps_it_would_offer()))
        self.derived: frozenset[str] = frozenset(card.get("derived", ()))
        self.dtypes: tuple[str, ...] = self._supported(card.get("dtypes"))
        try:
            self.options: frozenset[str] = offered_options(card.get("parameters", {}), card.get("options") or ())
            declarations.take(self, card.get("conventions"), card.get("contract"), card.get("domain"))
        except ValueError as error:
            raise TargetError(f"{target}: {error}") from error
        self.intermediates: bool = card.get("intermediates", False)
        self.training: bool = card.get("training", False)

    def __repr__(self) -> str:
        return f"ImplementationProxy({self.name})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the implementation's process; a later call would start a new one."""
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

        Raises ImplementationError (`.raised` tells whether it is an exception of the implementation's own), ImplementationTimeout,
        ImplementationCrash and, for its NotImplementedError, NotOffered, each from one line, for Hypothesis takes another for
        another bug. The shape is not checked here.
        """
        answer = self.answer(step, args, kwargs, dtype, device, layout=layout)
        if answer["replaced"]:
            raise ImplementationError(f"{self._label(step)} replaced {', '.join(answer['replaced'])}")
        if answer["changed"]:
            raise ImplementationError(f"{self._label(step)} changed its input {', '.join(answer['changed'])} in place")
        return accepted(answer, step, self.arrays, dtype, self._label(step))

    def intermediate(self, name: str, dtype: str) -> np.ndarray:
        """The intermediate matrix `name` of the last call, from the implementation's own `intermediate(name)`."""
        return accepted(
            self.answer("intermediate", (name,), {}, dtype), "intermediate", self.arrays, dtype, self._label("intermediate")
        )

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
        """The implementation's answer as it came, unchecked.

        Keys: those of `properties.implementations.returned.described`; changed: the names of the inputs it changed; replaced: the
        names of functions that it replaced by others (`properties.implementations.patched`).
        """
        if dtype not in DTYPES[self.arrays]:
            hint = " (numpy has no bfloat16)" if dtype == "bfloat16" else ""
            raise TargetError(f"{self.name}: expected a dtype of {', '.join(DTYPES[self.arrays])}, got {dtype}{hint}")
        if layout is not None and not set(layout.split(layouts.BESIDE)) <= set(LAYOUTS):
            raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
        if step == "positional_encoding":
            kwargs = {**kwargs, "dtype": {"@dtype": dtype}}
        request = wire.encode(
            {
                "step": step,
                "args": [_widened(value) for value in args],
                "kwargs": _widened(kwargs),
                "names": positional_names(step, len(args)),
                "dtype": dtype,
                "device": device or self.device,
                "layout": layout,
                "depth": returned.DEEPEST if step in STEPS and STEPS[step].kind == "nested" else 0,
            }
        )
        answer = self._answer(step, request)
        if isinstance(answer, tuple):
            kind, text = answer
            failure = kind(text)
            failure.raised = kind is ImplementationError  # type: ignore[attr-defined]
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
            failure = ImplementationTimeout, f"{self._label(step)} did not answer within {limit:.2g} s{self._last_line(hung=True)}"
        except EOFError:
            failure = ImplementationCrash, f"{self._label(step)} {self._end_of_worker('during the call')}"
        else:
            self._losses.answered(step, digest, time.monotonic() - began)
            return self._told(step, answer) if "raised" in answer else answer
        self._losses.lost(step, digest, failure, time.monotonic() - began)
        return failure

    def _greet(self) -> dict[str, Any]:
        """Start a worker and let it import the target: what that says about itself, {} where it died or hung (`_broken`)."""
        began = time.monotonic()
        try:
            self._worker = zygote(with_torch=self._greeting["arrays"] != "numpy").fork()
            card = self._worker.ask(wire.encode(self._greeting), self._import_time)
        except TimeoutError:
            place = self._last_line(hung=True)
            self._broken = ImplementationTimeout, f"{self.name} was not imported within {self._import_time:g} s{place}"
            return {}
        except EOFError:
            self._broken = ImplementationCrash, f"{self.name} {self._end_of_worker('while it was imported')}"
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
        if self._worker is None:  # the process that forks workers was not there in time
            return ""
        if hung:
            self._worker.interrupt()
        place, printed = self._worker.last_tokens()
        if hung:
            self.close()
        return (f" ({place})" if place else "") + (f"; its last output: {printed}" if printed else "")

    def _told(self, step: str, answer: dict[str, Any]) -> Failure:
        if answer["refused"] is not None:
            return NotOffered, answer["refused"]
        where = f" ({answer['where']})" if answer["where"] else ""
        if "CUDA error" in answer["raised"]:
            self.close()  # after one, every call on this device fails: the next call gets a process with a new context
        return ImplementationError, f"{self._label(step)} raised {answer['raised']}{where}"

    def _label(self, step: str) -> str:
        return self.name if self.steps == {step} else f"{self.name}.{step}"

    def _steps_it_would_offer(self) -> set[str]:
        """For a target that dies when it is imported: the one step it is asked for, or all, so that every claim says why."""
        name = self._greeting["step"] or self.target.rpartition(":")[2]
        return {name} if name in STEPS else set(STEPS)

    def _supported(self, declared: list[str] | None) -> tuple[str, ...]:
        possible = DTYPES[self.arrays]
        if declared is not None and (unknown := [dtype for dtype in declared if dtype not in possible]):
            raise TargetError(f"{self.name}: dtypes: expected some of {', '.join(possible)}, got {', '.join(unknown)}")
        return possible if declared is None else tuple(dtype for dtype in possible if dtype in declared)


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


def library(name: str, device: str = "cpu", max_time: float = 10.0, *, backward: bool = False) -> ImplementationProxy:
    """The adapter of that name in LIBRARIES. Raises TargetError, in one line, where its library is not installed."""
    if missing := library_missing(name):
        raise TargetError(f"{name}: {' and '.join(missing)} not installed; pip install -e '.[libraries]' brings it")
    target = library_target(name)
    return ImplementationProxy(target, device=device, max_time=max_time, import_time=120.0, name=name, backward=backward)
