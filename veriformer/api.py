"""`veriformer.verify`, for a user's own tests: the same run as the command line's, and its verdicts to assert on.

What another process can import by name is verified in a pytest process of its own: nothing of ours but `veriformer` is imported
into the user's, whose `properties` or `bench` may be folders of its own. A lambda or a closure is verified here all the same.
"""

import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from veriformer import engine, packages, settings
from veriformer.results import Results
from veriformer.run_options import RunOptions
from veriformer.settings import Refused

if TYPE_CHECKING:
    from reports import records
else:
    records = packages.standing_alone("reports.records")


class Verdicts(list[records.VerdictRecord]):
    """The verdicts of one run. True when nothing is broken and nothing is missing: `assert verify(...)` shows what is."""

    def __init__(
        self, findings: Iterable[records.VerdictRecord], missing: int = 0, why: str = "", follows: Iterable[records.Follows] = ()
    ) -> None:
        super().__init__(findings)
        self.follows = list(follows)  # the conventions it was seen to follow, or declares
        self.missing = missing  # planned checks that did not run
        self.why = why  # what was said when nothing ran

    @property
    def broken(self) -> list[records.VerdictRecord]:
        """Those that make a run red."""
        return [finding for finding in self if finding.broken]

    def __bool__(self) -> bool:
        return bool(len(self)) and not self.broken and not self.missing

    def assert_ok(self) -> None:
        """Raise AssertionError, with every broken claim and its smallest input, unless all is well."""
        if not self:
            raise AssertionError(repr(self))

    def __repr__(self) -> str:
        lines = [str(finding) for finding in self.broken]
        lines += [f"{self.missing} planned checks did not run: {self.why}"] if self.missing or not len(self) else []
        counts = f"{len(self)} verdicts, {len(self.broken)} broken"
        return "\n".join([counts, *lines])


class Place(NamedTuple):
    """Where another process finds a callable: a target, and the folder to start from."""

    target: str
    folder: Path | None


def verify(
    target: str | Callable[..., Any] | Any,
    step: str | None = None,
    dtype: str = "float32",
    *,
    device: str = "cpu",
    claims: str | Iterable[str] | None = None,
    examples: int | None = None,
    seed: int = 0,
    arrays: str | None = None,
    max_time: float = 10.0,
    conventions: str | Mapping[str, Any] | None = None,
    contract: str | Mapping[str, Any] | None = None,
    like: str | None = None,
    domain: str | Mapping[str, Any] | None = None,
    backward: bool = False,
) -> Verdicts:
    """Verify `target`, claim by claim, as `veriformer verify` does.

    `target` is a built-in name, `module:attribute`, `file.py:attribute`, or the callable (or object) itself; `step` says which
    step a callable is, where its name does not. `dtype` and `claims` may be comma-separated lists. `conventions` and `contract`
    declare what `target` does where there is a choice, and how it computes, as dicts or as on the command line; `like` declares
    all conventions of a library at once; `domain` which arguments it takes. With `backward` gradients are verified too, by
    autograd, of what it offers forward alone. Raises ValueError, in one line, for what cannot be verified as asked.
    """
    said = {"dtypes" if name == "dtype" else name: settings.as_text(value) for name, value in locals().items() if name != "target"}
    try:
        options = RunOptions.read(said)
    except ValueError as error:
        raise Refused(str(error)) from None
    place = Place(target, None) if isinstance(target, str) else found(target)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if place:
            request = engine.Request(targets=(place.target,), run=run, workers="auto", **vars(options))
            ended = engine.run(request, folder=place.folder)
        else:
            ended = _run_here(target, options, run)
        if ended.refusal:
            raise Refused(ended.refusal)
        results = Results.of(run)
    return Verdicts(results.findings, len(results.missing), ended.tail, results.follows)


def found(thing: Any) -> Place | None:
    """Where another process would find this very object; None when it could not."""
    name, module = getattr(thing, "__qualname__", None), sys.modules.get(getattr(thing, "__module__", None) or "")
    if name is None or module is None or _attribute(module, name) is not thing:
        return None
    if getattr(module, "__file__", None) is None:
        return Place(f"{module.__name__}:{name}", None)  # compiled into Python or torch
    file = Path(str(module.__file__)).resolve()
    if module.__name__ == "__main__" or (file.suffix == ".py" and "." not in module.__name__ and file.stem != "__init__"):
        return Place(f"{file}:{name}", None)
    depth = module.__name__.count(".") + (file.stem == "__init__")
    return Place(f"{module.__name__}:{name}", None if "site-packages" in file.parts else file.parents[depth])


def _attribute(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _run_here(thing: Any, options: RunOptions, run: Path) -> engine.Ended:
    """In this process, which may itself be in the midst of a pytest run."""
    name = str(getattr(thing, "__qualname__", type(thing).__qualname__)).replace(",", "")
    if mistake := packages.mistaken():
        raise Refused(f"{name}: no other process could import it, and in this one {mistake}; give it a name in a module")
    request = engine.Request(targets=(name,), run=run, **vars(options))
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = pytest.main([*request.arguments(), "--capture=no", "-pno:faulthandler"], plugins=[Hand(name, thing)])
    return engine.Ended(int(code), output.getvalue())


class Hand:
    """A pytest plugin that hands a callable to ours under a name."""

    def __init__(self, name: str, thing: Any) -> None:
        self.name, self.thing = name, thing

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """After our plugin has read its options."""
        from veriformer.planned import PLAN

        config.stash[PLAN].callables[self.name] = self.thing
