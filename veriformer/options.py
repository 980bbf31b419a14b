"""What the user may ask for: each option checked before anything starts, and refused in one line that names what was expected."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from veriformer import engine
from veriformer.run_options import BY_FIELD, RunOption, items
from veriformer.settings import Refused, nearest

if TYPE_CHECKING:
    from properties.conventions.declarations import Declarations


def listed(option: str, said: str | Iterable[str] | None, known: Collection[str], *, fold: bool = False) -> tuple[str, ...]:
    """The items of a list, which may be a text with commas, each one of `known` (whatever its case, if `fold`)."""
    names = {name.lower() if fold else name: name for name in known}
    found = items(said or ())
    for item in found:
        if (item.lower() if fold else item) not in names:
            raise Refused(f"{option}: no {item!r}{nearest(item, known)}; expected some of {', '.join(known)}")
    return tuple(dict.fromkeys(names[item.lower() if fold else item] for item in found))


def known_claims(said: str | Iterable[str] | None) -> tuple[str, ...]:
    """Claim ids."""
    from properties.claims import CLAIMS

    return listed("--claims", said, [claim.id for claim in CLAIMS], fold=True)


def known_dtypes(said: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names of dtypes."""
    from veriformer.isolation.proxy import DTYPES

    return listed("--dtype", said, DTYPES["torch"])


def known_step(name: str | None) -> str | None:
    """The name of a step."""
    from properties.steps import STEPS

    if name is not None and name not in STEPS:
        raise Refused(f"--as: no step {name!r}{nearest(name, STEPS)}; expected one of {', '.join(STEPS)}")
    return name


def available(name: str) -> str:
    """A device that is there."""
    if name == "cpu":
        return name
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise Refused(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.partition(":")[2] or 0) >= there:
        raise Refused(f"--device: no {name} here; expected one of {', '.join(['cpu', *(f'cuda:{i}' for i in range(there))])}")
    return name


def new_folder(name: str = "{}") -> Path:
    """A new folder in runs/ (`properties.run.run_folder.new`) for the command that is running."""
    from properties.run import run_folder

    return click.get_current_context().with_resource(run_folder.new(name))


def run_folder(path: Path | None) -> Path:
    """A folder that holds no run yet: the one named, or a new one in runs/."""
    path = path or new_folder()
    if path.exists() and (not path.is_dir() or (path / "manifest.json").exists() or (path / "verify.jsonl").exists()):
        raise Refused(f"--run: {path} already holds a run; expected a new folder or an empty one")
    return path.absolute()


def request(*, target: str, folder: Path | None = None, quick: bool = False, **said: Any) -> engine.Request:
    """What the options of `verify` ask for (`run_options`, by field); what is None is as if it were not said."""
    profile = "quick" if quick else "ci"
    return engine.Request.read(said, targets=(target,), run=run_folder(folder), profile=profile, workers="auto")


def asking(*names: str, **defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """These options of a run as options of a command, by their fields; `defaults` where it has others."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([BY_FIELD[name] for name in names]):
            names_of_it, default = (f"--{option.name}", option.field), defaults.get(option.field, option.default)
            if option.kind == "flag":
                command = click.option(*names_of_it, is_flag=True, help=option.text)(command)
                continue
            texts = {"metavar": option.metavar, "help": option.text, "show_default": default not in (None, ())}
            command = click.option(*names_of_it, type=_Type(option), default=None if default == () else default, **texts)(command)
        return command

    return add


class _Type(click.ParamType):
    """An option of a run as click reads it."""

    def __init__(self, option: RunOption) -> None:
        self.name, self.option = option.kind, option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002 (click's)
        """As what it is; Refused for what it is not."""
        try:
            return self.option.read(value)
        except ValueError as error:
            raise Refused(str(error)) from None


def declarations(
    conventions: str | None = None, contract: str | None = None, like: str | None = None, domain: str | None = None
) -> "Declarations":
    """What the options say that declare something of an implementation."""
    from properties.conventions.declarations import Declarations

    try:
        return Declarations.read(conventions, contract, like, domain)
    except ValueError as error:
        raise Refused(f"--{error}") from None


def start_early(name: str, arrays: str | None = None) -> None:
    """Start the process that a target will be in, if it will be in one: it imports torch while this process goes on."""
    if ":" not in name:
        from properties.implementations.registry import LIBRARIES

        if name not in LIBRARIES:
            return
    from veriformer.isolation.processes import zygote

    zygote(with_torch=arrays != "numpy")


@contextmanager
def opened(
    name: str,
    step: str | None = None,
    arrays: str | None = None,
    device: str = "cpu",
    max_time: float = 10.0,
    *,
    backward: bool = False,
) -> Iterator[Any]:
    """The adapter of a target (`adapter_of`); its process, where it has one, ends here."""
    start_early(name, arrays)
    adapter = adapter_of(name, step, arrays, device, max_time, backward=backward)
    try:
        yield adapter
    finally:
        getattr(adapter, "close", lambda: None)()


def adapter_of(name: str, step: str | None, arrays: str | None, device: str, max_time: float, *, backward: bool = False) -> Any:
    """The adapter of a target, in a process of its own unless it is built in; refuses what is neither built in nor imports.

    With `backward` it offers backward too, by autograd, what it offers forward alone.
    """
    from properties.implementations.registry import BUILT_IN, LIBRARIES, built_in, built_in_missing
    from veriformer.isolation.proxy import ImplementationProxy, TargetError, library

    if step is not None and (name in BUILT_IN or name in LIBRARIES):
        raise Refused(f"--as: {name} is built in and knows its own steps")
    if why := built_in_missing(name):
        raise Refused(f"{name}: {why}")
    if name in BUILT_IN:
        return built_in(name)
    try:
        if name in LIBRARIES:
            return library(name, device, max_time, backward=backward)
        return ImplementationProxy(name, step, arrays, device, max_time, backward=backward)
    except TargetError as error:
        known = [*BUILT_IN, *LIBRARIES]
        hint = "" if ":" in name or name in known else f"{nearest(name, known)} (built in: {', '.join(known)})"
        raise Refused(f"{error}{hint}") from error


def declared_of(adapter: Any, dtypes: tuple[str, ...], declarations: "Declarations") -> Any:
    """The adapter as it is declared; refuses a declaration that means nothing, and dtypes that it does not support."""
    from properties.conventions.declarations import must_make_sense

    about = declarations.about(adapter)
    try:
        must_make_sense(about, dtypes or adapter.dtypes)
    except ValueError as error:
        raise Refused(f"--{error}") from None
    if missing := [dtype for dtype in dtypes if dtype not in adapter.dtypes]:
        raise Refused(f"--dtype: {adapter.name} supports {', '.join(adapter.dtypes)}, got {', '.join(missing)}")
    return about
