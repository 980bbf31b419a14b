"""`veriformer budget STEP`."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from reports.records import encoded
from veriformer.settings import Refused, nearest

DTYPES = ("float64", "float32", "bfloat16", "float16")


@click.command()
@click.argument("step", required=False)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The step's arguments by name, as an .npz file; nested ones with dots: layer.norm_1.gain.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="bfloat16", show_default=True, help="What the implementation stores.")
@click.option(
    "--contract",
    metavar="LIST",
    help="How it computes, e.g. mode=fused,cast_weights=true; else what an undeclared one is held to.",
)
@click.option("--got", type=click.Path(path_type=Path, dir_okay=False), help="A result to judge, as an .npy file.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write exact, scale and bound (infinite but for single steps) to an .npz file.",
)
@click.option("--cost", is_flag=True, help="In place of all that: what `within_rounding` costs, and the pytest plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    step: str | None,
    inputs: Path | None,
    dtype: str,
    contract: str | None,
    got: Path | None,
    write: Path | None,
    cost: bool,
    as_json: bool,
) -> None:
    """Say how far a correct computation of STEP may stray from the oracle, on the inputs given.

    Inputs are rounded to the dtype first. Exit code 1 if a result given with --got is over its budget.
    """
    if cost:
        _show_cost(as_json=as_json, alone=step is None and inputs is None)
        return
    if step is None or inputs is None:
        raise Refused("expected STEP and --inputs FILE, or --cost; `veriformer list steps` names the steps and their arguments")
    from properties.error_budget.budgets import FAIL, budget
    from properties.implementations.formats import FORMATS
    from properties.steps import STEPS

    if step not in STEPS:
        raise Refused(f"STEP: {step!r} is none{nearest(step, STEPS)}; expected one of {', '.join(STEPS)}")
    positional, named = _arguments(STEPS[step].arguments, _loaded(inputs))
    positional, named = (_rounded(value, FORMATS[dtype].to_nearest, dtype) for value in (positional, named))
    declared = _contract(contract, dtype)
    try:
        allowed = budget(step, *positional, dtype=dtype, contract=declared, **named)
        score = None if got is None else allowed.score(_loaded(got))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Refused(f"{step}({STEPS[step].arguments}): {type(error).__name__}: {error}") from error
    relative = allowed.scale / np.where(allowed.exact == 0, np.inf, np.abs(allowed.exact))
    found: dict[str, Any] = {
        "step": step,
        "dtype": dtype,
        "shape": list(allowed.exact.shape),
        "scale": {"median": float(np.median(allowed.scale)), "largest": float(allowed.scale.max())},
        "relative": {"median": float(np.median(relative)), "largest": float(relative.max())},
        "fails beyond": f"{FAIL:g} scales",
        "undecidable": int(allowed.undecidable.sum()),
    }
    if allowed.bound is not None:
        found["proven bound"] = {"median": float(np.median(allowed.bound)), "largest": float(allowed.bound.max())}
    if score is not None:
        found["verdict"], found["judged"] = str(score.verdict), str(score)
    if write:
        with write.open("wb") as file:
            nothing = np.full(allowed.exact.shape, np.inf)
            np.savez(file, exact=allowed.exact, scale=allowed.scale, bound=nothing if allowed.bound is None else allowed.bound)
    click.echo(encoded(found, indent=1) if as_json else "\n".join(_lines(found)))
    ctx.exit(1 if score is not None and score.budget_used > 1 else 0)


def _show_cost(*, as_json: bool, alone: bool) -> None:
    if not alone:
        raise Refused("--cost: expected neither STEP nor --inputs beside it, for it measures steps and sizes of its own")
    from veriformer import rounding_cost

    found, imported, plugin = list(rounding_cost.measured()), rounding_cost.of_the_import(), rounding_cost.of_the_plugin()
    told = {"cost": found, "import": imported, "plugin": plugin}
    click.echo(encoded(told, indent=1) if as_json else "\n".join(rounding_cost.lines(found, imported, plugin)))


def _lines(found: dict[str, Any]) -> list[str]:
    def shown(value: Any) -> str:
        return ", ".join(f"{name} {number:.3g}" for name, number in value.items()) if isinstance(value, dict) else str(value)

    return [f"{name:<13} {shown(value)}" for name, value in found.items()]


def _loaded(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (OSError, ValueError, EOFError) as error:
        raise Refused(f"{path}: expected NumPy arrays (np.save or np.savez), got a file that cannot be read: {error}") from error


def _arguments(signature: str, arrays: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arrays of a file as arguments: what stands before the * in the step's signature by position, the rest by name."""
    if not isinstance(arrays, dict):
        raise Refused("--inputs: expected an .npz file with an array for each argument, got a single array")
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = array.item() if array.ndim == 0 else array
    before = [part.split()[0].split("=")[0] for part in _parts(signature.partition("*")[0]) if part]
    positional = [nested.pop(name, None) for name in before]
    while positional and positional[-1] is None:
        positional.pop()
    return positional, {name: _listed(value) for name, value in nested.items()}


def _parts(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _listed(value: Any) -> Any:
    """layers.0, layers.1 … as a list."""
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(item) for name, item in value.items()}
    numbered = inner and all(name.isdigit() for name in inner)
    return [inner[name] for name in sorted(inner, key=int)] if numbered else inner


def _rounded(value: Any, to_nearest: Any, dtype: str) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item, to_nearest, dtype) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, to_nearest, dtype) for item in value]
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    return value.astype(np.float64) if dtype == "float64" else to_nearest(value.astype(np.float64))


def _contract(text: str | None, dtype: str) -> Any:
    from properties.conventions.declarations import Declarations
    from properties.implementations.contract import declared

    try:
        return declared(Declarations.read(contract=text), dtype)
    except ValueError as error:
        raise Refused(f"--{error}" if str(error).startswith("contract:") else f"--contract: {error}") from error
