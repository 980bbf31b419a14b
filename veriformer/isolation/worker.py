"""The process a user's implementation lives in. Started by `veriformer.isolation.proxy` as `python -P worker.py FD torch|numpy`.

Stand-alone: it imports the standard library, numpy, torch where asked, the user's code, and none of our packages (a few files that
stand alone as well are loaded by their paths), so that the user's own `bench` or `properties` keep their names; and the oracle is
out of reach (`reach`).

    parent ── control socket ──> zygote: imports torch once, then only forks, so that a crash costs milliseconds
    parent ── one socket each ─> worker: imports the user's code, answers calls until it is told to go, or dies

A message is two lengths, a JSON text and the bytes of its arrays; nothing is ever pickled. The worker's stdout and stderr are
a pipe of their own, so that printing cannot disturb an answer. Not a sandbox: it guards against mistakes, not against malice.
"""

import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import inspect
import json
import os
import resource
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

torch: Any = None  # the module, once the zygote has imported it


def _ours(file: str) -> ModuleType:
    """A file of ours that stands alone, loaded by its path, so that no package of ours becomes importable."""
    path = Path(__file__).resolve().parents[2] / file
    spec = importlib.util.spec_from_file_location(f"_veriformer_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from properties.implementations import autograd, cached, layouts, patched, returned
    from properties.run import subprocesses
    from veriformer.isolation import reach, wire
else:
    autograd = _ours("properties/implementations/autograd.py")
    cached = _ours("properties/implementations/cached.py")
    layouts = _ours("properties/implementations/layouts.py")
    patched = _ours("properties/implementations/patched.py")
    returned = _ours("properties/implementations/returned.py")
    reach = _ours("veriformer/isolation/reach.py")
    subprocesses = _ours("properties/run/subprocesses.py")
    wire = _ours("veriformer/isolation/wire.py")

OURS = {str(module.__file__) for module in (autograd, cached, layouts, reach, returned, wire)} | {__file__}


# ---- the zygote ----


def zygote(control: socket.socket) -> None:
    """Fork a worker for every pair of descriptors sent; reap the workers asked for; leave at the end of file.

    Its guard (`properties.run.subprocesses`) ends whom it leaves behind.
    """
    here = os.getpid()
    gc.freeze()  # what is imported by now is shared by all workers and never collected
    control.sendall(json.dumps({"ready": True}).encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not data:
            break
        if "reap" in (request := json.loads(data)):
            reply = _reap(request["reap"], request["grace"])
        else:
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_worker(here, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            reply = {"pid": pid}
        control.sendall(json.dumps(reply).encode())


def _reap(pid: int, grace: float) -> dict[str, Any]:
    """Wait `grace` seconds for the worker to end by itself, then kill it and what it started; say how it ended."""
    deadline = time.monotonic() + grace
    done, status = os.waitpid(pid, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.0005)
        done, status = os.waitpid(pid, os.WNOHANG)
    for kill in (os.killpg, os.kill):
        if kill is os.killpg or not done:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # already gone
                kill(pid, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "ended_by_us": not done}


def _become_worker(zygote_pid: int, connection_fd: int, log_fd: int) -> None:
    """The fork's own half: never returns."""
    code = 1
    try:
        os.setsid()  # a group of its own: no terminal, no Ctrl-C, and killed together with what it starts
        subprocesses.die_with(zygote_pid)
        _die_first_and_quietly()
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.close(log_fd)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        faulthandler.enable(all_threads=False)  # a crash and a hang (SIGUSR1) say in which line they happened
        faulthandler.register(signal.SIGUSR1, all_threads=False)
        connection = socket.socket(fileno=connection_fd)
        os.register_at_fork(after_in_child=connection.close)  # or the parent would wait for what the implementation forks
        serve(connection)
        code = 0
    except (EOFError, OSError):
        code = 0  # the parent is gone, or this is a fork of the implementation's that came back here
    except SystemExit as leaving:
        if not (leaving.code is None or isinstance(leaving.code, int)):
            print(leaving.code, file=sys.stderr)
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code & 0xFF)


def _die_first_and_quietly() -> None:
    """When memory runs out the kernel is to take the implementation, not the run; and a crash is not to write a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # not Linux, or not allowed: then the kernel chooses
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


# ---- the worker: find what is to be called ----


class TargetRefused(Exception):
    """The target cannot be used: a usage error, not a verdict about it."""


def serve(connection: socket.socket) -> None:
    """Answer requests until the parent closes the connection. The first one says what to import, or which script to run."""
    candidate: Candidate | None = None
    while True:
        request = wire.receive(partial(wire.read_exactly, connection))
        if "script" in request:
            run(request)
            return
        if candidate is None:
            reach.close()
            try:
                candidate = Candidate(request)
                answer: dict[str, Any] = candidate.card()
            except TargetRefused as refused:
                answer = {"refused": str(refused)}
            except Exception as error:  # of its own attributes, say
                answer = {"refused": f"target {request['target']!r} cannot be looked at: {_told(error)}"}
        else:
            answer = candidate.answer(request)
        connection.sendall(wire.encode(answer))


def run(request: dict[str, Any]) -> None:
    """Run a script as `python SCRIPT OPTIONS` would in that folder, but for the time that importing torch takes."""
    os.chdir(request["folder"])
    sys.argv = [request["script"], *request["options"]]
    runpy.run_path(request["script"], run_name="__main__")


def load(target: str) -> tuple[Any, str]:
    """The object that `module:attribute`, `path/to/file.py:attribute` or `module` names, and its own name."""
    place, colon, attribute = target.partition(":")
    if not place or (colon and not attribute):
        raise TargetRefused(f"target: expected module:attribute or path/to/file.py:attribute, got {target!r}")
    thing = _file(Path(place)) if place.endswith(".py") else _module(place)
    for name in attribute.split(".") if attribute else ():
        if not hasattr(thing, name):
            raise TargetRefused(f"target {target!r}: {getattr(thing, '__name__', thing)!s} has no attribute {name!r}")
        thing = getattr(thing, name)
    return thing, attribute.rpartition(".")[2] or place.rpartition(".")[2]


def _module(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise TargetRefused(f"{place} does not import: {_told(error)}") from error
        package, _, attribute = place.rpartition(".")
        if package and error.name == place:  # my_package.my_attention may also be an attribute of a module
            module = _module(package)
            if hasattr(module, attribute):
                return getattr(module, attribute)
        raise TargetRefused(
            f"no module named {error.name!r} in {Path.cwd().name}/ or installed: expected module:attribute or file.py:attribute"
        ) from error
    except Exception as error:
        raise TargetRefused(f"{place} does not import: {_told(error)}") from error


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetRefused(f"no file {str(path)!r}: expected path/to/file.py:attribute")
    name = path.stem if path.stem not in sys.modules else f"candidate_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python path/to/file.py` would
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TargetRefused(f"{path} does not import: {_told(error)}") from error
    return module


def offered(thing: Any, name: str, step: str | None, known: list[str]) -> dict[str, Callable[..., Any]]:
    """The callables `thing` offers, by step: its methods or functions of that name, or itself."""
    methods = {known_step: getattr(thing, known_step, None) for known_step in known}
    methods = {known_step: method for known_step, method in methods.items() if callable(method)}
    if step is not None:
        method = methods.get(step, thing)
        if not callable(method):
            raise TargetRefused(f"target: expected a callable to use as {step}, got {name} of type {type(thing).__name__}")
        return {step: method}
    if methods:
        return methods
    if callable(thing) and name in known:
        return {name: thing}
    if callable(thing):
        raise TargetRefused(f"target: {name!r} is not the name of a step; say which one it is with --as STEP ({', '.join(known)})")
    raise TargetRefused(f"target: {name} of type {type(thing).__name__} is not callable and offers none of {', '.join(known)}")


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, or of a module's `forward`; none where they cannot be read."""
    try:
        return list(inspect.signature(getattr(function, "forward", function)).parameters)
    except (TypeError, ValueError):
        return []


def differentiated(steps: dict[str, Callable[..., Any]], names: list[str]) -> dict[str, Callable[..., Any]]:
    """The backward steps of these names, by autograd of the forward ones."""
    return {name: autograd.backward_of(name, steps[autograd.FORWARD[name]]) for name in names}


class Candidate:
    """The object under test: one, alive through all calls of this worker."""

    def __init__(self, greeting: dict[str, Any]) -> None:
        os.chdir(greeting["folder"])
        sys.path[:0] = [greeting["folder"], *greeting["path"]]
        sys.dont_write_bytecode = True  # nothing is left beside the user's files
        self.functions = patched.Functions()  # before any of the user's code
        target, known = greeting["target"], greeting["known_steps"]
        self.thing: Any
        self.thing, name = load(target)
        if inspect.isclass(self.thing):
            try:
                self.thing = self.thing()
            except Exception as error:
                raise TargetRefused(f"{target}() cannot be made without arguments: {_told(error)}") from error
        self.steps = offered(self.thing, name, greeting["step"], known)
        self.parameters = {name: parameters_of(self.steps[name]) for name in greeting["steps_with_options"] if name in self.steps}
        self.arrays = greeting["arrays"] or self._says("arrays", str) or "torch"
        if self.arrays not in ("torch", "numpy"):
            raise TargetRefused(f"{target}: arrays: expected 'torch' or 'numpy', got {self.arrays!r}")
        if self.arrays == "torch" and torch is None:
            raise TargetRefused(f"{target} takes torch tensors, and torch does not import here")
        self.derived = autograd.derivable(self.steps) if greeting["backward"] and self.arrays == "torch" else []
        self.steps |= differentiated(self.steps, self.derived)

    def card(self) -> dict[str, Any]:
        """What it says about itself."""
        dtypes = self._says("dtypes", list | tuple | set | frozenset)
        options = self._says("options", list | tuple | set | frozenset)
        return {
            "steps": list(self.steps),
            "parameters": self.parameters,
            "options": None if options is None else [str(option) for option in options],
            "derived": self.derived,
            "arrays": self.arrays,
            "dtypes": None if dtypes is None else [str(dtype).removeprefix("torch.") for dtype in dtypes],
            "conventions": self._plainly("conventions"),
            "contract": self._plainly("contract"),
            "domain": self._domain(),
            "intermediates": callable(getattr(self.thing, "intermediate", None)),
            "training": bool(getattr(self.thing, "training", False)),
        }

    def _plainly(self, attribute: str) -> dict[str, Any] | None:
        """What it declares in an attribute: names and plain values, nested or not."""
        said = self._says(attribute, dict)
        for name, value in _leaves(said or {}):
            if not isinstance(value, str | bool | int | float | None):
                raise TargetRefused(f"attribute {attribute}: expected names and plain values, got {name!r}: {value!r}")
        return said

    def _domain(self) -> dict[str, Any] | None:
        """What it says of the arguments it takes: axes, and sizes or words."""
        said = self._says("domain", dict)
        if said is None:
            return None
        plain = {str(axis): list(rule) if isinstance(rule, range | tuple | list) else rule for axis, rule in said.items()}
        for axis, rule in plain.items():
            sizes = rule if isinstance(rule, list) else [rule]
            if not all(each is None or isinstance(each, str | int) for each in sizes):
                raise TargetRefused(
                    f"attribute domain: expected sizes or words, got {axis!r}: {returned.printable(repr(said[axis]))}"
                )
        return plain

    def _says(self, attribute: str, kind: Any) -> Any:
        value = None if isinstance(self.thing, ModuleType) else getattr(self.thing, attribute, None)
        if value is not None and not isinstance(value, kind):
            expected = kind.__name__ if isinstance(kind, type) else "sequence"
            raise TargetRefused(f"attribute {attribute}: expected a {expected}, got {returned.printable(repr(value))}")
        return value

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call one step, or `intermediate`: the result described, or what was raised. SystemExit ends the worker."""
        inputs: list[layouts.Handed] = []
        give = partial(_given, make=partial(self._handed, request, inputs))
        args = [give(value, path) for value, path in zip(request["args"], request["names"], strict=True)]
        kwargs = {name: give(value, name) for name, value in request["kwargs"].items()}
        if isinstance(kwargs.get("window"), list):
            kwargs["window"] = tuple(kwargs["window"])  # the wire knows lists alone
        function = self.thing.intermediate if request["step"] == "intermediate" else self.steps[request["step"]]
        if request["step"] in cached.CACHES:
            function = partial(cached.play, function)
        try:
            numbers = [each.memory for each in inputs if each.numbers]
            result = layouts.asked(request["layout"], numbers, args, partial(function, **kwargs))
        except SystemExit:
            raise
        except BaseException as error:
            refusal = returned.exception(error)[1] if issubclass(type(error), NotImplementedError) else None
            return {"raised": returned.raised(error), "where": returned.where(error, OURS), "refused": refusal}
        told = {"changed": [each.path for each in inputs if each.changed()], "replaced": self.functions.replaced()}
        return returned.described(result, depth=request["depth"]) | told

    def _handed(self, request: dict[str, Any], inputs: list["layouts.Handed"], value: Any, path: str) -> Any:
        if isinstance(value, str):  # the name of a dtype
            return getattr(torch if self.arrays == "torch" else np, value)
        device = request["device"] if self.arrays == "torch" else None
        inputs.append(layouts.Handed(path, value, request["dtype"], device, layouts.of(request["layout"], len(inputs))))
        return inputs[-1].given


def _leaves(said: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for name, value in said.items():
        yield from _leaves(value) if isinstance(value, dict) else [(name, value)]


def _given(value: Any, path: str, make: Callable[[Any, str], Any]) -> Any:
    """Nested arguments with every array (and every {"@dtype": name}) replaced by `make(value, path)`."""
    if isinstance(value, np.ndarray):
        return make(value, path)
    if isinstance(value, dict):
        if "@dtype" in value:
            return make(value["@dtype"], path)
        return {key: _given(item, f"{path}.{key}", make) for key, item in value.items()}
    if isinstance(value, list):
        return [_given(item, f"{path}[{i}]", make) for i, item in enumerate(value)]
    return value


def _told(error: BaseException) -> str:
    """One line: the exception and the user's line it comes from."""
    where = returned.where(error, OURS)
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{Path(error.filename).name}:{error.lineno}"
        return returned.printable(f"{type(error).__name__}: {error.msg} ({where})")
    text = returned.raised(error)
    return f"{text} ({where})" if where else text


if __name__ == "__main__":
    if sys.argv[2] == "torch":
        try:
            torch = importlib.import_module("torch")
        except ImportError:
            torch = None  # said by the worker to those who need it
    zygote(socket.socket(fileno=int(sys.argv[1])))
