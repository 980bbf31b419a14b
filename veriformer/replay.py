"""What is said of a broken property: which failure it is one of, and of each failure once the smallest counterexample.

A failure is explained by whoever meets it first, in whichever process: an empty file in the run's folder, made by one of them
alone, says that it is being done. The others refer to it by its name, which all know beforehand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veriformer.isolation import wire
from veriformer.isolation.processes import zygote

if TYPE_CHECKING:
    from properties.counterexample.find import Counterexample
    from properties.implementations.impl import Impl
    from properties.verdict.judge import Judgement

SECONDS, LEAST_SECONDS, LESS = 2.5, 0.3, 0.85  # to make the first counterexample small; each further one gets less
MOST_SECONDS = 20.0  # that a script may run
FOLDER = "counterexamples"
REFERENCE = {"counterexample": "", "refers": True}
MET = ".met"  # the file of a failure that somebody explains, or has explained


class Failures:
    """The failures met so far in a run, or, without a folder, in this process."""

    def __init__(self, run: Path | None) -> None:
        self.folder = None if run is None else run / FOLDER
        self._here: set[str] = set()

    def met(self, name: str) -> bool:
        """Whether somebody has met it."""
        return name in self._here if self.folder is None else (self.folder / f"{name}{MET}").exists()

    def meet(self, name: str) -> bool:
        """Note that it is met; whether this is the first time."""
        if self.folder is None:
            first = name not in self._here
            self._here.add(name)
            return first
        self.folder.mkdir(exist_ok=True)
        try:
            (self.folder / f"{name}{MET}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @property
    def seconds(self) -> float:
        """How long the next one may be made small."""
        known = len(self._here) if self.folder is None else len(list(self.folder.glob(f"*{MET}")))
        return max(LEAST_SECONDS, SECONDS * LESS ** max(0, known - 1))


def explained(
    failures: Failures, impl: "Impl", claim: str, law: str, judgement: "Judgement", shrunk: Callable[[], "Judgement"]
) -> dict[str, Any]:
    """What the verdict's line says besides what was judged. `shrunk` judges once more, with Hypothesis making the example small."""
    from properties.counterexample.failures import failure_of, is_large
    from properties.counterexample.find import smallest
    from properties.counterexample.minimise import corners
    from properties.counterexample.write import as_text
    from reports.records import Verdict

    name, calls = failure_of(impl, judgement).id, judgement.calls
    line: dict[str, Any] = {"failure": name}
    large = bool(calls) and is_large(calls[-1])
    if failures.met(name) or not (large or failures.meet(name)):
        return line | REFERENCE
    if judgement.verdict in (Verdict.VACUOUS, Verdict.UNEXPECTED_PASS):
        return line  # there is nothing to be asked again
    if large:
        calls = tuple(corner for corner in corners(calls[-1]) if not is_large(corner))
    found = smallest(impl, claim, law, calls, seconds=failures.seconds, name=name)
    if found is not None and large and not failures.meet(name):
        return line | REFERENCE
    if found is not None:
        return line | {"counterexample": as_text(found) + _script(failures, impl, found)}
    if large:
        return line | {"counterexample": f"a call of {judgement.calls[-1].step} with too many numbers to be written down"}
    smaller = shrunk()
    told = ("message", "counterexample", "budget_used", "index", "expected", "got")
    return line | ({each: getattr(smaller, each) for each in told} if smaller.verdict is judgement.verdict else {})


def _script(failures: Failures, impl: "Impl", found: "Counterexample") -> str:
    """A line that says how to see it again, where it is written down and a process of its own shows it."""
    from properties.counterexample.write import write
    from properties.implementations.registry import BUILT_IN

    target = getattr(impl.adapter, "target", None)  # of an implementation in a process of its own
    candidate = BUILT_IN.get(impl.name, target)
    if failures.folder is None or candidate is None:
        return ""
    path = write(failures.folder, found, candidate=candidate)
    code = 1 if found.ends_its_process else exit_code(path, with_torch=found.arrays == "torch")
    if code == 1:
        return f"\nveriformer repro {path.stem}"
    for written in (path, path.with_suffix(".json")):
        written.unlink()
    return f"\nno script: run by itself, it ended with {'no exit code' if code is None else f'exit code {code}'}"


def exit_code(script: Path, *options: str, with_torch: bool) -> int | None:
    """What a script exits with, run by a process that has imported torch already; None where it does not end in time."""
    worker = zygote(with_torch=with_torch).fork()
    request = {"script": str(script), "options": list(options), "folder": str(Path.cwd())}
    try:
        worker.ask(wire.encode(request), MOST_SECONDS)
    except EOFError:
        return worker.exit_code()
    except TimeoutError:
        pass
    worker.close()
    return None
