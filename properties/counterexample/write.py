"""Counterexamples written: on disk, as a script that stands alone and its base for programs, and as a text for a reader.

counterexamples/<id>.py      exits with 1 on the fault and 0 once it is fixed; needs NumPy (or torch) and the implementation
counterexamples/<id>.json    the same calls as data, numbers in hexadecimal
"""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from properties.counterexample import template
from properties.counterexample.expected import Answers
from properties.counterexample.find import Counterexample
from properties.implementations import autograd, layouts, patched
from properties.implementations.accepted import promised
from properties.implementations.cached import CACHES, OPTIONAL, play
from properties.implementations.calls import Asked
from properties.implementations.laid_rows import beside as laid_beside
from properties.steps import STEPS, positional_names

KEPT = 300  # characters of an argument in a text; the script holds all of it


def write(folder: Path, found: Counterexample, *, candidate: str | None = None, source: str | None = None) -> Path:
    """Write the script and its base in JSON. `candidate` is what the script runs on when nothing else is named.

    `source` is the text of an implementation that cannot be imported by a name (a re-created fault): it is put beside the script.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.id}.py"
    if source is not None:
        candidate = f"{found.id}.candidate.py"
        (folder / candidate).write_text(source, encoding="utf-8")
    path.write_text(_script(found, candidate, beside=source is not None), encoding="utf-8")
    base = {
        "id": found.id,
        "claim": found.claim,
        "property": found.law,
        "implementation": found.implementation,
        "candidate": candidate,
        "dtype": found.dtype,
        "arrays": found.arrays,
        "calls": as_data([call._asdict() for call in found.calls]),
        "answers": as_data([[{"expected": exact, "allowed": allowed} for exact, allowed, _ in each] for each in found.answers]),
    }
    path.with_suffix(".json").write_text(json.dumps(base, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def calls_of(path: Path) -> list[Asked]:
    """The calls that a base holds, in our own conventions."""
    calls = from_data(json.loads(path.read_text(encoding="utf-8"))["calls"])
    return [Asked(call["step"], tuple(call["args"]), call["kwargs"], call["layout"]) for call in calls]


def _script(found: Counterexample, candidate: str | None, *, beside: bool) -> str:
    text = inspect.getsource(template)
    step = found.calls[-1].step
    calls = ",\n".join(_literal_call(call, each) for call, each in zip(found.given, found.answers, strict=True))
    where = f'str(Path(__file__).with_name({candidate!r})) + ":{step}"' if beside else repr(candidate)
    kind = promised(step, found.dtype)
    entries = {"title": repr(found.title), "candidate": where, "step": repr(step), "dtype": repr(found.dtype)}
    entries |= {"arrays": repr(found.arrays), "result_dtype": repr(kind), "results": repr(STEPS[step].results)}
    entries |= {"calls": f"[\n{calls},\n    ]"}
    case = "CASE: dict = {\n" + "".join(f'    "{name}": {text},\n' for name, text in entries.items()) + "}\n"
    played = f"\nOPTIONAL = {OPTIONAL!r}\n\n\n{inspect.getsource(play)}" if step in CACHES else ""
    if any(call.layout for call in found.given):
        source = inspect.getsource(layouts)
        text = text.replace(_NO_LAYOUTS, source[source.index("class Handed") :])
    if " replaced " in found.fault.detail:
        source = inspect.getsource(patched)
        text = text.replace(_NO_FUNCTIONS, source[source.index("FUNCTIONS = {") :])
    if found.derived:
        source = inspect.getsource(autograd)
        parts = source[source.index("FORWARD = {") : source.index("class Differentiated")].rstrip()
        text = text.replace(_NO_AUTOGRAD, f"{parts}\n")
        text = text.replace("import Callable, Iterator", "import Callable, Collection, Iterator")
        text = text.replace("from itertools import cycle", "from functools import partial\nfrom itertools import cycle")
    text = text.replace("TITLE", found.title).replace("THIS_FILE", f"{found.id}.py")
    return text.replace("CASE: dict = {}\n", case + played)


_NO_AUTOGRAD = """backward_of: Any = None  # where only its forward is offered: what differentiates that
FORWARD: dict = {}
"""
_NO_LAYOUTS = """LAYOUTS: dict = {}  # where a call depends on the memory its arrays lie in: ways to lay them, and to use it before
asked: Any = None
"""
_NO_FUNCTIONS = """Functions: Any = None  # where one replaces functions that it may be judged by: what those are
"""


def _literal_call(call: Asked, expected: Answers) -> str:
    parts = {
        "layout": repr(call.layout),
        "args": _literal(list(call.args)),
        "kwargs": _literal(call.kwargs),
        "expected": _literal([answer.exact for answer in expected]),
        "allowed": _literal([answer.allowed for answer in expected]),
    }
    lines = "".join(f'            "{name}": {text},\n' for name, text in parts.items())
    return f"        {{\n{lines}        }}"


def _literal(value: Any) -> str:
    """Python text that evaluates to the value; every number is written in decimal, exactly."""
    if isinstance(value, np.ndarray) and value.size > SPARSE and value.ndim > 1:
        return _rows(value)
    if isinstance(value, np.ndarray):
        shape = "" if value.size else f".reshape({value.shape})"
        return (
            f"np.array({value.tolist() if value.size else []!r}, np.{value.dtype.name}{'_' if value.dtype == bool else ''}){shape}"
        )
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_literal(item)}, " for item in value).rstrip() + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value.item() if isinstance(value, np.generic) else value)


SPARSE = 256  # numbers of an array, of which more are written as what all rows have in common and what differs


def _rows(array: np.ndarray) -> str:
    """`rows(shape, dtype, row, others)`: the row that most have, and of the others what differs from it."""
    flat = array.reshape(-1, array.shape[-1])
    distinct, counts = np.unique(flat, axis=0, return_counts=True)
    common = distinct[int(counts.argmax())]
    values, counts = np.unique(common, return_counts=True)
    fill = values[int(counts.argmax())]
    row = {int(i): common[i].item() for i in np.flatnonzero(~_equal(common, fill))}
    others = {}
    for place in np.flatnonzero(~_equal(flat, common).all(axis=1)):
        index = tuple(int(i) for i in np.unravel_index(int(place), array.shape[:-1]))
        others[index] = {int(i): flat[place, i].item() for i in np.flatnonzero(~_equal(flat[place], common))}
    return f"rows({array.shape}, {array.dtype.name!r}, {fill.item()!r}, {row!r}, {others!r})"


def _equal(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Where numbers are equal, NaN to NaN."""
    return (X == Y) | ((X != X) & (Y != Y))  # noqa: PLR0124 (NaN)


def as_data(value: Any) -> Any:
    """Nested arguments as JSON; numbers as hexadecimal text, so that not a bit is lost."""
    if isinstance(value, np.ndarray):
        flat = [float(number).hex() if value.dtype.kind == "f" else number.item() for number in value.ravel()]
        return {"array": value.dtype.name, "shape": list(value.shape), "values": flat}
    if isinstance(value, dict):
        return {key: as_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_data(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return {"float": value.hex()} if isinstance(value, float) and not math.isfinite(value) else value


def from_data(value: Any) -> Any:
    """The other way round."""
    if isinstance(value, dict) and "array" in value:
        flat = [float.fromhex(number) if isinstance(number, str) else number for number in value["values"]]
        return np.array(flat, dtype=value["array"]).reshape(value["shape"])
    if isinstance(value, dict):
        return float.fromhex(value["float"]) if set(value) == {"float"} else {key: from_data(item) for key, item in value.items()}
    return [from_data(item) for item in value] if isinstance(value, list) else value


# ---- as a reader sees it ----


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
    return [f"    laid into {', '.join(larger)}: {laid_beside(call.step)}"]


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
