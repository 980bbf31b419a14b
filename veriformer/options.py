"""What the user may ask for: each option checked before anything starts, and refused in one line that names what was expected."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from veriformer import engine
from veriformer.run_options import BY_FIELD, DECLARED, RunOption
from veriformer.settings import Refused, nearest

if TYPE_CHECKING:
    from properties.conventions.declarations import Declarations

WORTH_MORE_WORKERS = 8  # steps × dtypes × the part of the claims asked for; below it, a second process costs more than it saves


def listed(option: str, text: str | None, known: Collection[str], *, fold: bool = False) -> tuple[str, ...]:
    """The items of a comma-separated list, each one of `known` (whatever its case, if `fold`)."""
    names = {name.lower() if fold else name: name for name in known}
    items = [item.strip() for item in (text or "").split(",") if item.strip()]
    for item in items:
        if (item.lower() if fold else item) not in names:
            raise Refused(f"{option}: no {item!r}{nearest(item, known)}; expected some of {', '.join(known)}")
    return tuple(dict.fromkeys(names[item.lower() if fold else item] for item in items))


def known_claims(text: str | None) -> tuple[str, ...]:
    """Claim ids."""
    from properties.claims import CLAIMS

    return listed("--claims", text, [claim.id for claim in CLAIMS], fold=True)


def known_dtypes(text: str | None) -> tuple[str, ...]:
    """Names of dtypes."""
    from veriformer.isolation.proxy import DTYPES

    return listed("--dtype", text, DTYPES["torch"])


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


def run_folder(path: Path | None) -> Path:
    """A folder that holds no run yet: the one named, or a new one under runs/."""
    from properties.run.run_folder import new_id

    if path is None:
        path = first = Path("runs") / new_id()
        count = 1
        while path.exists():  # two runs within one second
            count += 1
            path = first.with_name(f"{first.name}-{count}")
    if path.exists() and (not path.is_dir() or (path / "manifest.json").exists() or (path / "verify.jsonl").exists()):
        raise Refused(f"--run: {path} already holds a run; expected a new folder or an empty one")
    return path.absolute()


CHECKED: dict[str, Callable[[Any], Any]] = {
    "step": known_step,
    "dtypes": known_dtypes,
    "device": available,
    "claims": known_claims,
}


def request(*, target: str, folder: Path | None = None, quick: bool = False, **asked: Any) -> engine.Request:
    """The options of `verify` (`run_options`, by field), checked; what is None is as if it were not said."""
    declarations(**{name: asked.get(name) for name in DECLARED})
    said = {name: CHECKED[name](value) if name in CHECKED else value for name, value in asked.items() if value is not None}
    return engine.Request(targets=(target,), run=run_folder(folder), profile="quick" if quick else "ci", **said)


def asking(*names: str, **defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """These options of a run as options of a command, by their fields; `defaults` where it has others."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([BY_FIELD[name] for name in names]):
            names_of_it, default = (f"--{option.name}", option.field), defaults.get(option.field, option.default)
            if option.kind == "flag":
                command = click.option(*names_of_it, is_flag=True, help=option.text)(command)
                continue
            texts = {"metavar": option.metavar, "help": option.text, "show_default": default is not None}
            command = click.option(*names_of_it, type=_type(option), default=default, **texts)(command)
        return command

    return add


def _type(option: RunOption) -> Any:
    match option.kind:
        case "choice":
            return click.Choice(option.choices)
        case "count":
            return click.IntRange(1)
        case "seed":
            return click.IntRange(0)
        case "seconds":
            return click.FloatRange(0, min_open=True)
    return str


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
    from properties.implementations.registry import LIBRARIES

    if ":" in name or name in LIBRARIES:
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
    """The adapter of a target, in a process of its own unless it is built in; refuses what is neither built in nor imports.

    With `backward` it offers backward too, by autograd, what it offers forward alone.
    """
    start_early(name, arrays)
    from properties.implementations.registry import BUILT_IN, LIBRARIES, built_in, built_in_missing
    from veriformer.isolation.proxy import ImplementationProxy, TargetError, library

    if step is not None and (name in BUILT_IN or name in LIBRARIES):
        raise Refused(f"--as: {name} is built in and knows its own steps")
    if name in BUILT_IN:
        if why := built_in_missing(name):
            raise Refused(f"{name}: {why}")
        yield built_in(name)
        return
    try:
        if name in LIBRARIES:
            adapter = library(name, device, max_time, backward=backward)
        else:
            adapter = ImplementationProxy(name, step, arrays, device, max_time, backward=backward)
    except TargetError as error:
        known = [*BUILT_IN, *LIBRARIES]
        hint = "" if ":" in name or name in known else f"{nearest(name, known)} (built in: {', '.join(known)})"
        raise Refused(f"{error}{hint}") from error
    with adapter:
        yield adapter


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


def with_target(request: engine.Request) -> engine.Request:
    """The request, with as many workers as its target is worth.

    Refuses a target that is neither built in nor imports, offers no step, or does not support the dtypes asked for. It is
    imported once, here, so that a typo costs a line and not a run.
    """
    from properties.claims import CLAIMS

    (name,) = request.targets
    about = (name, request.step, request.arrays, request.device, request.max_time)
    with opened(*about, backward=request.backward) as adapter:
        declared_of(adapter, request.dtypes, declarations(request.conventions, request.contract, request.like, request.domain))
    asked = len(request.claims) / len(CLAIMS) if request.claims else 1.0
    worth = len(adapter.steps) * len(request.dtypes or adapter.dtypes) * asked
    return replace(request, workers=engine.workers(request.device) if worth >= WORTH_MORE_WORKERS else 1)
