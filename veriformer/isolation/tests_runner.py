"""The process of a user's tests: pytest collects them once, and every run is a fork with something in their kernel's place.

Started by `veriformer.users_tests.session` as `python -P tests_runner.py`; it reads a line of JSON for each run from stdin, and
answers with lines on what was stdout. Stand-alone: standard library, numpy, torch, pytest and the user's own code; a few files of
ours are loaded by their paths, so that the user's own `bench` or `properties` keep their names.

    first line in    what to collect, what to replace
    first line out   what was collected, or why nothing was ("refused")
    a line in        a run: what stands in, the tests to go through, when to stop
    a line out       how it went: which tests failed, what was asked
"""

import contextlib
import importlib
import importlib.util
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import pytest


def _ours(file: str) -> ModuleType:
    """A file of ours that stands alone, loaded by its path, so that no package of ours becomes importable."""
    path = Path(__file__).resolve().parents[2] / file
    name = f"_veriformer_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from properties.evaluation.users_tests import answering, reading
    from properties.run import subprocesses
    from veriformer.isolation import axes, replaced, stand_in
else:
    reading = _ours("properties/evaluation/users_tests/reading.py")
    answering = _ours("properties/evaluation/users_tests/answering.py")
    subprocesses = _ours("properties/run/subprocesses.py")
    axes = _ours("veriformer/isolation/axes.py")
    replaced = _ours("veriformer/isolation/replaced.py")
    stand_in = _ours("veriformer/isolation/stand_in.py")

MESSAGE = 300  # characters of what a failing test says
LOOK = 0.1  # seconds between two looks at the clock
PLAIN = {"numprocesses": None, "dist": "no", "tx": [], "xmlpath": None, "no_cov": True, "usepdb": False}
"""Options of pytest and its plugins that distribute, measure, ask, or write a file of results: what they are set to here."""


# ---- pytest, collected once ----


class Collector:
    """The plugin that lets pytest collect, and then serves runs in place of its own loop."""

    def __init__(self, request: dict[str, Any], send: Callable[[dict[str, Any]], None], requests: IO[str]) -> None:
        self.request, self.send, self.requests = request, send, requests
        self.errors: list[str] = []
        self.served = False
        self.run: Run | None = None  # in a fork, what is noted there

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        """Here nothing is distributed, measured or written to a file of results, whatever the project's options say."""
        elsewhere = {"benchmark_storage": f"file://{self.request['scratch']}"}
        for name, value in (PLAIN | elsewhere).items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        return (yield)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected."""
        if report.failed:
            lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("E ")] or lines[-1:]
            self.errors.append(f"{report.nodeid}: {errors[-1].removeprefix('E').strip()[:MESSAGE] if errors else 'not collected'}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Serve runs until there are no more requests; a fork never comes back from here."""
        self.served = True
        if self.errors:
            self.send({"refused": f"--tests: {self.errors[0]}"})
        elif not session.items:
            self.send({"refused": "--tests: no test was collected"})
        else:
            serve(self, session)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What became of a test, in a fork."""
        if self.run is not None:
            self.run.take(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """The exception's own words, which the report has among others."""
        report = yield
        if call.excinfo is not None and report.failed:
            report.said = " ".join(f"{call.excinfo.typename}: {call.excinfo.value}".split())[:MESSAGE]
        return report


def arguments(request: dict[str, Any]) -> list[str]:
    """pytest's, beside those of the project's configuration; what it keeps goes to a folder of ours."""
    plain = ["-o", f"cache_dir={request['scratch']}", "--tb=line", "--maxfail=0"]
    loaded = not os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    plain += ["--no-cov"] if loaded and importlib.util.find_spec("pytest_cov") else []
    return [*plain, *request["tests"]]


# ---- runs, each in a fork ----


@dataclass
class Child:
    """A fork and what it has written so far."""

    id: str
    pid: int
    pipe: int
    until: float
    began: float
    text: bytes = b""
    out_of_time: bool = False


def serve(collector: Collector, session: pytest.Session) -> None:
    """Say what was collected, then run what is asked for, as many at once as are asked for."""
    try:
        place = replaced.Place(collector.request["replaces"], collector.request["step"])
    except replaced.NotFound as error:
        collector.send({"refused": str(error)})
        return
    collector.send(
        {
            "items": [item.nodeid for item in session.items],
            "parameters": place.parameters,
            "all_axes": place.all_axes,
            "takes_self": place.takes_self,
            "path": [folder for folder in sys.path if folder],
            "files": _files_of(session.config.rootpath),
        }
    )
    children: dict[int, Child] = {}
    stdin = collector.requests.fileno()
    unread, open_still = b"", True
    while open_still or children:
        ready: list[int] = select.select([*children, *([stdin] if open_still else [])], [], [], LOOK)[0]  # type: ignore[assignment]
        if stdin in ready:
            new = os.read(stdin, 1 << 20)
            open_still = bool(new)
            *lines, unread = (unread + new).split(b"\n")
            for told in map(json.loads, lines):
                if "import" in told:
                    _import(told["import"])
                else:
                    child = _forked(collector, session, place, told, [*children])
                    children[child.pipe] = child
        for pipe in [pipe for pipe in ready if pipe != stdin]:
            if new := os.read(pipe, 1 << 16):
                children[pipe].text += new
            else:
                collector.send(_ended(children.pop(pipe)))
        for child in children.values():
            if time.monotonic() > child.until and not child.out_of_time:
                child.out_of_time = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def _files_of(root: Path) -> list[str]:
    """The files of the project that are imported by now: what its tests' answers may depend on."""
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = {Path(file).resolve() for file in found if file and Path(file).is_file()}
    return sorted(str(file) for file in files if file.is_relative_to(root.resolve()) and "site-packages" not in file.parts)


def _import(names: list[str]) -> None:
    """Import once, for all runs to come, what the first run had to import: `torch.testing` alone costs seconds."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _imported(before: set[str], root: Path) -> list[str]:
    """The modules that are not the project's and were imported since then."""
    new = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items()) if name not in before]
    return [name for name, file in new if file and ("site-packages" in file or not Path(file).resolve().is_relative_to(root))]


def _forked(collector: Collector, session: pytest.Session, place: Any, job: dict[str, Any], others: list[int]) -> Child:
    reads, writes = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writes)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        now = time.monotonic()
        return Child(job["id"], pid, reads, now + job["seconds"], now)
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        subprocesses.die_with(parent)
        for pipe in (reads, *others):
            os.close(pipe)
        collector.run = Run(job, writes)
        collector.run.go(session, place)
        code = 0
    except BaseException as error:
        if collector.run is not None:
            collector.run.write({"broken": f"{type(error).__name__}: {error}"[:MESSAGE]})
    finally:
        os._exit(code)


def _ended(child: Child) -> dict[str, Any]:
    """What a run came to, from what it wrote and how it ended."""
    os.close(child.pipe)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what it started
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    result: dict[str, Any] = {"id": child.id, "failed": {}, "skipped": {}, "passed": [], "at": None, "seen": None}
    for line in child.text.split(b"\n")[:-1]:
        told = json.loads(line)
        match told:
            case {"at": index}:
                result["at"] = index
            case {"failed": index, "said": said}:
                result["failed"].setdefault(str(index), said)
            case {"skipped": index, "said": said}:
                result["skipped"][str(index)] = said
            case {"passed": index}:
                result["passed"].append(index)
            case {"seen": seen}:
                result |= {"seen": seen, "at": None}
            case {"broken": why}:
                result["broken"] = why
    result["passed"] = [index for index in result["passed"] if str(index) not in result["failed"]]
    result["seconds"] = round(time.monotonic() - child.began, 3)
    result["ended"] = "out of time" if child.out_of_time else "" if result["seen"] is not None else subprocesses.ending(code)
    return result


@dataclass
class Run:
    """One run of the tests, in a fork."""

    job: dict[str, Any]
    pipe: int
    index: int = -1
    said: dict[str, Any] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def write(self, told: dict[str, Any]) -> None:
        """A line for the parent, at once: what is written outlives this process."""
        os.write(self.pipe, json.dumps(told).encode() + b"\n")

    def go(self, session: pytest.Session, place: Any) -> None:
        """Put the stand-in in place and go through the tests."""
        job = self.job
        signature = reading.Signature(**job["signature"])
        seen = stand_in.Seen()
        at_work: Any
        if job["kind"] == "axes":
            at_work = axes.Probed(reading, answering, signature, seen, takes_self=job["returned"]["takes_self"])
        elif job["stand_in"] is None:
            at_work = stand_in.Watched(reading, answering, signature, seen, takes_self=job["returned"]["takes_self"])
        else:
            at_work = stand_in.AtWork(reading, answering, signature, seen, job["stand_in"], job["returned"])
        held = [item.callspec.params for item in session.items if hasattr(item, "callspec")]  # type: ignore[attr-defined]
        place.replace(at_work, held)
        at_work.original = place.original
        before = set(sys.modules)
        index = self._next(-1, len(session.items))
        while index is not None:
            self.index = index
            item = session.items[index]
            seen.test = item.nodeid
            after = self._next(index, len(session.items))
            self.write({"at": index})
            following = None if after is None else session.items[after]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if index not in self.failed:
                self.write({"passed": index})
            if (job["maxfail"] and len(self.failed) >= job["maxfail"]) or seen.tokens_first is not None:
                break
            index = after
        imported = _imported(before, session.config.rootpath) if job["stand_in"] is None else []
        self.write({"seen": seen.as_plain() | {"imported": imported}})

    def _next(self, index: int, count: int) -> int | None:
        """The next test to run: any, and once a fault is noticed one that has not failed for anything yet."""
        wanted = self.job["open"] if self.failed - set(self.job["discounted"]) and not self.job["all"] else range(count)
        return next((each for each in wanted if each > index), None)

    def take(self, report: pytest.TestReport) -> None:
        """Note a failure, or a reason to skip."""
        if report.failed:
            self.failed.add(self.index)
            self.write({"failed": self.index, "said": getattr(report, "said", "failed")})
        elif report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.write({"skipped": self.index, "said": reason.removeprefix("Skipped: ")[:MESSAGE]})


# ---- the process ----


def main() -> None:
    """Answer on what was stdout; whatever the tests print goes to a file that is shown where pytest refuses to begin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

        def send(told: dict[str, Any]) -> None:
            answers.write(json.dumps(told) + "\n")
            answers.flush()

        request = json.loads(_line(requests.fileno()))
        os.chdir(request["folder"])
        sys.path.insert(0, request["folder"])  # as `python -m pytest` would
        sys.dont_write_bytecode = True
        collector = Collector(request, send, requests)
        code = pytest.main(arguments(request), plugins=[collector])
        if not collector.served:
            log.seek(0)
            lines = [line.strip() for line in log.read().splitlines() if line.strip()]
            errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
            reason = collector.errors[:1] or errors[:1] or [f"pytest ended with exit code {int(code)}"]
            send({"refused": f"--tests: {reason[0][:MESSAGE]}"})
    os._exit(0)


def _line(descriptor: int) -> bytes:
    """The first line, and no byte more: the rest is read as it comes."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(descriptor, 1)):
            raise SystemExit
        line += byte
    return line


if __name__ == "__main__":
    main()
