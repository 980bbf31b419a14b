"""A counterexample as a reader sees it: the calls with their numbers, and what is wrong with the answer to the last."""

from typing import Any

import numpy as np

from properties.counterexample.find import Counterexample
from properties.implementations.calls import Asked
from properties.implementations.laid_rows import beside
from properties.steps import positional_names

KEPT = 300  # characters of an argument; the script holds all of it


def as_text(found: Counterexample) -> str:
    """A line an argument."""
    calls = (line for call, given in zip(found.calls, found.given, strict=True) for line in (_call(call), *_larger(call, given)))
    return "\n".join([*calls, found.fault.detail])


def _larger(call: Asked, given: Asked) -> list[str]:
    """A line about the larger call that was asked in its place, within the implementation's domain."""
    shapes = [(np.shape(was), np.shape(now)) for was, now in zip(call.args, given.args, strict=True)]
    if all(was == now for was, now in shapes):
        return []
    names = positional_names(call.step, len(call.args))
    larger = [f"{name} {'×'.join(map(str, now))}" for name, (_, now) in zip(names, shapes, strict=True) if now]
    return [f"    laid into {', '.join(larger)}: {beside(call.step)}"]


def _call(call: Asked) -> str:
    names = positional_names(call.step, len(call.args))
    arguments = [*zip(names, call.args, strict=True), *call.kwargs.items()]
    shown = ", ".join(f"{name}={_value(value)}" for name, value in arguments if not isinstance(value, np.ndarray | list | dict))
    lines = [
        f"    {name} = {_shortened(_value(value))}" for name, value in arguments if isinstance(value, np.ndarray | list | dict)
    ]
    layout = f", arrays laid out in memory as {call.layout}" if call.layout else ""
    return "\n".join([f"{call.step}{f'({shown})' if shown else ''}{layout}{':' if lines else ''}", *lines])


def _shortened(text: str) -> str:
    return text if len(text) <= KEPT else f"{text[:KEPT]} …"


def _value(value: Any) -> str:
    """Of an array its numbers; of one that holds zeros alone, or none, the shape."""
    if isinstance(value, np.ndarray):
        shape = "×".join(map(str, value.shape))
        return (
            f"{value.tolist()}" if value.any() else f"{shape} zeros" if value.size and value.dtype != bool else f"{value.tolist()}"
        )
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_value(item)}, " for item in value).strip(", ") + (",)" if len(value) == 1 else ")")
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
