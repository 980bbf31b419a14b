"""`veriformer localize TARGET`."""

import importlib
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from reports.records import encoded
from veriformer.settings import Refused, nearest

DTYPES = ("float64", "float32", "bfloat16", "float16")
SIZES = {"d_model": 64, "d_ff": 128, "h": 4, "tokens": 9, "vocab": 17}


@click.command()
@click.argument("target")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="What the model computes in.")
@click.option("--layers", type=click.IntRange(1, 48), default=6, show_default=True, help="Of a model run from single steps.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A safetensors file of `properties.implementations.weights`: what was meant to be loaded.",
)
@click.option("--names", type=click.Path(path_type=Path), help='A JSON map: {"encoder.0.self_attention.output": "my.module", …}.')
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the inputs, and the weights where TARGET has none."
)
@click.option("--backward", is_flag=True, help="Differentiate the model, and find the first gradient that goes wrong.")
@click.option("--all", "show_all", is_flag=True, help="Print every matrix recorded, with its own and its whole error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(ctx: click.Context, /, *, target: str, as_json: bool, show_all: bool, **asked: Any) -> None:
    """Find the first step at which TARGET goes wrong, or with --backward the first gradient.

    TARGET is module:attribute or file.py:attribute: a torch.nn.Transformer (or a function without arguments that makes one), any
    other module with --names and --weights, or an implementation by its steps (also a name from `veriformer list implementations`).
    TARGET runs in this process. Exit code: 0 no step over budget, 1 a step is, 2 usage.
    """
    try:
        finding = _found(target, **asked)
    except Refused:
        raise
    except ValueError as error:
        raise Refused(f"{target}: {error}") from error
    if as_json:
        click.echo(encoded(_json(finding), indent=1))
    else:
        console = Console(highlight=False)
        if show_all:
            console.print(_table(finding))
        console.print(str(finding), markup=False, soft_wrap=True)
    ctx.exit(0 if finding else 1)


def _found(target: str, *, dtype: str, layers: int, weights: Path | None, names: Path | None, seed: int, backward: bool) -> Any:
    import torch

    from properties.implementations.registry import BUILT_IN, built_in
    from veriformer.localization import localize

    if target in BUILT_IN:
        _must_be_a_module(target, backward)
        return _by_steps(built_in(target), dtype, layers, seed)
    if ":" not in target and not target.endswith(".py"):
        raise Refused(
            f"no implementation {target!r}{nearest(target, BUILT_IN)}; expected module:attribute or one of {', '.join(BUILT_IN)}"
        )
    thing = _loaded(target)
    if isinstance(thing, torch.nn.Module):
        loaded: dict[str, Any] = {} if weights is None else _weights(weights)
        mapping = None if names is None else _names(names)
        return localize(thing.to(getattr(torch, dtype)).eval(), names=mapping, seed=seed, backward=backward, **loaded)
    _must_be_a_module(target, backward)
    return _by_steps(thing, dtype, layers, seed)


def _must_be_a_module(target: str, backward: bool) -> None:
    if backward:
        instead = f"`veriformer verify {target} --backward` judges their gradients"
        raise Refused(f"--backward: expected a torch.nn.Module, got single steps; {instead}")


def _loaded(target: str) -> Any:
    """The user's object; a class or a function without arguments is called."""
    candidate = importlib.import_module("veriformer.isolation.worker")
    try:
        thing, _ = candidate.load(target)
        return thing() if callable(thing) and not _is_module(thing) else thing
    except candidate.TargetRefused as refused:
        raise Refused(str(refused)) from refused
    except TypeError as error:
        raise Refused(f"{target}: expected a module, or a function or class to be called without arguments ({error})") from error


def _is_module(thing: Any) -> bool:
    import torch

    return isinstance(thing, torch.nn.Module)


def _weights(path: Path) -> dict[str, Any]:
    from properties.implementations.weights import load
    from reference.parameters import Architecture

    if not path.is_file():
        raise Refused(f"--weights: no file {str(path)!r}")
    parameters, choices = load(path)
    return {"parameters": parameters, "architecture": Architecture(**choices)}


def _names(path: Path) -> dict[str, str]:
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--names: no file {str(path)!r}") from error
    except ValueError as error:
        raise Refused(f"--names {path}: expected JSON, got {error}") from error
    if not isinstance(mapping, dict) or not all(isinstance(place, str) for place in mapping.values()):
        raise Refused(f'--names {path}: expected {{"name in the oracle\'s trace": "module or module:input"}}')
    return mapping


def _by_steps(adapter: Any, dtype: str, layers: int, seed: int) -> Any:
    import numpy as np

    from properties.implementations.impl import Impl
    from properties.implementations.weights import mapped, nested
    from properties.localize.localize import Case
    from reference.initialisation import initialise
    from reference.parameters import Architecture
    from veriformer.localization import localize_steps

    if not hasattr(adapter, "steps"):
        from veriformer.isolation.in_process import InProcess

        adapter = InProcess(type(adapter).__name__, adapter, None, None)
    if dtype not in adapter.dtypes:
        raise Refused(f"--dtype: {adapter.name} takes {', '.join(adapter.dtypes)}, got {dtype}")
    impl, rng = Impl(adapter, dtype), np.random.default_rng(seed)
    drawn = initialise(seed, vocab=SIZES["vocab"], d_model=SIZES["d_model"], d_ff=SIZES["d_ff"], layers=layers)
    parameters = mapped(
        lambda array: impl.representable(array + 0.25 * rng.standard_normal(array.shape) * (array.ndim == 1)), nested(drawn)
    )
    source, target = rng.integers(0, SIZES["vocab"], (2, SIZES["tokens"]))
    return localize_steps(impl, Case(parameters, Architecture(h=SIZES["h"]), source, target))


def _table(finding: Any) -> Table:
    table = Table("matrix", "own error", "whole error", title=f"share of the budget in {finding.dtype}")
    for place in finding.places:
        style = "bold red" if place.is_over else ""
        total = "–" if place.total is None else f"{place.total.budget_used:.3g}"
        table.add_row(place.name, f"{place.own.budget_used:.3g}", total, style=style)
    return table


def _json(finding: Any) -> dict[str, Any]:
    culprit = finding.culprit
    return {
        "dtype": finding.dtype,
        "first_divergence": None if culprit is None else culprit.name,
        "explanation": finding.explanation,
        "places": [
            {
                "name": place.name,
                "own_budget_used": place.own.budget_used,
                "total_budget_used": None if place.total is None else place.total.budget_used,
                "at": list(place.own.index),
            }
            for place in finding.places
        ],
    }
