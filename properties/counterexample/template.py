"""TITLE

python THIS_FILE [--candidate module:attribute | file.py:attribute] [--device cpu]

Stand-alone: NumPy, and torch where the implementation takes tensors; nothing of the suite that wrote it. Exits with 1 where the
fault shows, 0 where it does not (any more), 2 for wrong usage.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy import inf, nan  # noqa: F401 (a case may hold them)

LAYOUTS: dict = {}  # where a call depends on the memory its arrays lie in: ways to lay them, and to use it before
asked: Any = None

Functions: Any = None  # where one replaces functions that it may be judged by: what those are

play: Any = None  # where the step is a cache: the function that plays a program on one
backward_of: Any = None  # where only its forward is offered: what differentiates that
FORWARD: dict = {}


def rows(shape: tuple, dtype: str, fill: Any, row: dict, others: dict) -> np.ndarray:
    """An array of `fill`, but for some columns of every row (`row`), and some numbers of other rows (`others`, by index)."""
    array = np.full(shape, fill, dtype)
    for column, value in row.items():
        array[..., column] = value
    for index, values in others.items():
        for column, value in values.items():
            array[*index, column] = value
    return array


CASE: dict = {}


def load(target: str) -> Any:
    """The object that `module:attribute` or `path/to/file.py:attribute` names."""
    place, _, attribute = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("candidate", place)
        assert spec
        assert spec.loader
        thing = importlib.util.module_from_spec(spec)
        sys.modules["candidate"] = thing
        spec.loader.exec_module(thing)
    else:
        thing = importlib.import_module(place)
    for name in attribute.split(".") if attribute else ():
        thing = getattr(thing, name)
    return thing


def function_of(thing: Any, step: str) -> Any:
    """The callable to be asked: a method or function named after the step, or the object itself."""
    thing = thing() if isinstance(thing, type) else thing
    return getattr(thing, step, thing)


def handed(value: Any, device: str, layouts: Iterator[str]) -> Any:
    """The arguments as the implementation takes them: every array of its kind, dtype and device, laid in memory in the next way."""
    if isinstance(value, dict):
        return {key: handed(item, device, layouts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(handed(item, device, layouts) for item in value)
    if not isinstance(value, np.ndarray):
        return value
    wanted = CASE["dtype"] if value.dtype == np.float64 else value.dtype.name
    if CASE["arrays"] == "numpy":
        array = value.astype(wanted)
    else:
        import torch

        array = torch.from_numpy(value.copy()).to(device, getattr(torch, wanted))
    layout = next(layouts)
    return LAYOUTS[layout](array, value)[1] if layout in LAYOUTS and value.size else array


def taken(value: Any) -> np.ndarray:
    """An array of the implementation's as float64 (or its own whole numbers)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).resolve_conj().resolve_neg().numpy()
    return np.asarray(value)


def holds(value: Any) -> bool:
    """Whether a tensor of a subclass holds in memory what it gives when it is read; of one that cannot be read, yes."""
    torch = sys.modules.get("torch")
    if torch is None or not issubclass(type(value), torch.Tensor) or type(value) is torch.Tensor:
        return True
    held = None
    with suppress(BaseException), torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 (as torch's notes on extending it do)
        plain = torch.Tensor.as_subclass(value, torch.Tensor)
        held = taken(plain) if plain.data_ptr() == torch.Tensor.data_ptr(value) else None
    try:
        return held is not None and np.array_equal(held, taken(value), equal_nan=held.dtype.kind == "f")
    except BaseException:
        return True


def arrays(value: Any) -> Iterator[Any]:
    """Every array in nested arguments."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays(item)
    elif hasattr(value, "shape"):
        yield value


def answers(function: Callable[..., Any], call: dict, device: str) -> list[np.ndarray]:
    """The matrices the implementation answers to one call; what is wrong with the call itself is printed and ends the script."""
    layouts = cycle((call["layout"] or "contiguous").split("+"))
    args, kwargs = (handed(call[name], device, layouts) for name in ("args", "kwargs"))
    if CASE["step"] == "positional_encoding":
        kwargs["dtype"] = (
            np.dtype(CASE["dtype"]).type if CASE["arrays"] == "numpy" else getattr(sys.modules["torch"], CASE["dtype"])
        )

    def ask(*given: Any) -> Any:
        return play(function, *given, **kwargs) if play else function(*given, **kwargs)

    numbers = [each for each in arrays([args, kwargs]) if "float" in str(each.dtype)]
    functions = Functions() if Functions else None
    try:
        result = asked(call["layout"], numbers, args, ask) if asked else ask(*args)
    except BaseException as error:
        sys.exit(fault(f"raised {type(error).__name__}: {said(error)}"))
    if functions and (replaced := functions.replaced()):
        sys.exit(fault(f"replaced {', '.join(replaced)}"))
    for now, was in zip(arrays([args, kwargs]), arrays([call["args"], call["kwargs"]]), strict=True):
        if taken(now).shape != was.shape or not np.array_equal(taken(now), was, equal_nan=was.dtype == np.float64):
            sys.exit(fault("changed its input in place"))
    found = [logits for logits, _ in result["results"] if logits is not None] if play else several(result)
    for each in found:
        dtype = str(getattr(each, "dtype", type(each).__name__)).removeprefix("torch.")
        if dtype not in CASE["result_dtype"].split(" or "):
            sys.exit(fault(f"expected a result of dtype {CASE['result_dtype']}, got {dtype}"))
        if not holds(each):
            sys.exit(fault(f"returned a {type(each).__name__}, which does not hold what it gives when it is read"))
    try:
        return [taken(each) for each in found]
    except BaseException as error:
        sys.exit(fault(f"returned a {type(found[0]).__name__} that raised {type(error).__name__} when it was read: {said(error)}"))


def several(result: Any) -> list:
    """The arrays of an answer: of a step with several results, by their names or in their order."""
    if not CASE["results"]:
        return [result]
    return [result[name] for name in CASE["results"]] if isinstance(result, dict) else list(result)


def said(error: BaseException) -> str:
    """The message of an exception, on one line that a terminal can print."""
    try:
        return ascii(str(error)[:500])[1:-1]
    except BaseException as other:
        return f"(no message: its __str__ raised {type(other).__name__})"


def fault(message: str) -> int:
    """Say what is wrong; the exit code for it."""
    print(f"FAULT: {CASE['step']} in {CASE['dtype']}: {message}")
    return 1


def compared(got: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> list[str]:
    """Lines about the components further from what is expected than rounding allows."""
    if got.shape != expected.shape:
        return [f"expected a result of shape {expected.shape}, got {got.shape}"]
    lines = []
    for place in np.ndindex(expected.shape):
        right, wrong, bound = expected[place], got[place], allowed[place]
        same = right == wrong or (np.isnan(right) and np.isnan(wrong))
        if not same and not (bound == inf or abs(float(wrong) - float(right)) <= bound):
            lines.append(f"{list(place)}: expected {right.item()!r} ± {bound:.3g}, got {wrong.item()!r}")
    return lines


def main() -> int:
    """Ask every call in its order, and compare."""
    parser = argparse.ArgumentParser(description=CASE["title"])
    parser.add_argument("--candidate", default=CASE["candidate"], help="module:attribute or file.py:attribute")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.candidate is None:
        parser.error("--candidate: expected module:attribute or file.py:attribute")
    try:
        function = function_of(load(options.candidate), FORWARD.get(CASE["step"], CASE["step"]))
        function = function if backward_of is None else backward_of(CASE["step"], function)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        parser.error(f"--candidate {options.candidate}: {error}")
    if not callable(function):
        parser.error(f"--candidate {options.candidate}: expected a callable, got {type(function).__name__}")
    for call in CASE["calls"]:
        found = answers(function, call, options.device)
        if not call["expected"]:  # nothing but that it answers at all
            continue
        if len(found) != len(call["expected"]):
            return fault(f"expected {len(call['expected'])} results, got {len(found)}")
        for got, expected, allowed in zip(found, call["expected"], call["allowed"], strict=True):
            lines = compared(got, expected, allowed)
            if lines:
                return fault(
                    "\n  ".join([f"{len(lines)} of {expected.size} numbers are further off than rounding allows", *lines[:8]])
                )
    print(f"no fault: {CASE['title']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
