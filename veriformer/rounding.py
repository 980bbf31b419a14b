"""The error budget as an assert: is this result what rounding makes of the exact one, or is it wrong?

    from veriformer import assert_within_rounding
    assert_within_rounding("attention", flash(Q, K, V, mask), Q, K, V, mask)

Arrays of torch, NumPy, jax or any library that has `__array__` or DLPack. It needs no pytest. What is exact, and how far a correct
computation in the dtype may be from it, element by element, comes from `properties.error_budget`; there is no other tolerance.
Importing this module imports none of our packages. They are imported by the first call; where a project has packages of the same
names (`properties`, `bench`, …), a process beside it answers in their place.
"""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from veriformer import packages

DTYPES = ("float64", "float32", "bfloat16", "float16")
PLAIN = (bool, int, float, str, type(None), np.generic)
TOLERANCES = ("rtol", "atol", "tol")
Nested = Any
"""Arrays, dicts and lists of arrays, and plain values."""


@dataclass(frozen=True)
class Rounding:
    """What was found. True where every element is within rounding; `str` explains it at length, `repr` in one line.

    kind         what is off: "element", "sum" (errors that add up along a row, a column …), "category" (NaN or infinite, and the
                 exact one is not, or the other way round), "shape", "dtype", "undecidable" (too much of a correct computation
                 overflows); "" where nothing is
    index        the worst element     expected, got   there
    budget_used  its error, or that of the worst sum, as a multiple of what rounding allows     sigmas   the same in σ
    tolerance    what a fair absolute tolerance would be at that element
    off          how many of the `elements` are over their own
    """

    step: str
    dtype: str
    kind: str = ""
    index: tuple[int, ...] = ()
    expected: Any = None
    got: Any = None
    budget_used: float = 0.0
    sigmas: float = 0.0
    tolerance: float = 0.0
    off: int = 0
    elements: int = 0
    where: str = ""  # "component", "row, bias", "bound" …, as the budget has it
    held_to: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return not self.kind

    def __repr__(self) -> str:
        match self.kind:
            case "":
                used = f"worst {self.budget_used:.2g} of the budget at {self.index}" if self.elements else "no element"
                return f"{self.step} within rounding of {self.dtype}: {self.elements} elements, {used}"
            case "shape" | "dtype":
                return f"{self.step}: expected {self.kind} {self.expected}, got {self.got}"
            case "undecidable":
                return (
                    f"{self.step}: {self.off} of {self.elements} elements cannot be judged, since a correct computation in "
                    f"{self.dtype} may overflow there"
                )
        return f"{self.step}: {self._values()}: {self._how_much()}; {self.off} of {self.elements} elements off"

    def __str__(self) -> str:
        if self.kind in ("", "shape", "dtype", "undecidable"):
            return repr(self) + (f"\n  {self.hint}" if self.hint else "")
        lines = [
            f"{self.step}: not within rounding of {self.dtype}, worst at {self.index}",
            f"  expected  {self.expected!r}",
            f"  got       {self.got!r}",
            f"  error     {self._how_much()}",
            f"  elements  {self.off} of {self.elements} off",
            f"  fair here {self._fair()}",
            f"  held to   {self.held_to}",
        ]
        return "\n".join([*lines, *([f"  hint      {self.hint}"] if self.hint else [])])

    def _values(self) -> str:
        return f"expected {self.expected!r} at {self.index}, got {self.got!r}"

    def _how_much(self) -> str:
        if self.kind == "category":
            return f"which rounding in {self.dtype} does not turn into one another"
        times = f"{self.budget_used:.3g} times the budget"
        if self.kind == "sum":
            return f"{abs(self.got - self.expected):.3g} here, and errors add up ({self.where}) to {self.sigmas:.3g} σ, {times}"
        how = "above the proven bound" if self.where == "bound" else f"{self.sigmas:.3g} σ"
        return f"{abs(self.got - self.expected):.3g}, {how}, {times}"

    def _fair(self) -> str:
        if not np.isfinite(self.expected):
            return f"{self.expected!r} alone"
        share = f", {100 * self.tolerance / abs(self.expected):.2g} % of the value" if self.expected else ""
        return f"±{self.tolerance:.3g}{share}"


def within_rounding(
    step: str,
    got: Any,
    *inputs: Any,
    accumulate: str | None = None,
    mode: str | None = None,
    dtype: Any = None,
    conventions: str | Mapping[str, Any] | None = None,
    like: str | None = None,
    **options: Any,
) -> Rounding:
    """Whether `got` differs from the exact `step(*inputs, **options)` by what rounding allows, and by nothing else.

    `step` and the names in `options` are those of `veriformer list steps`; a mask has True where a query may attend, unless
    `conventions` or `like` say otherwise, as for `veriformer.verify`. `dtype` is that of `got` if it is not given. `accumulate`,
    `mode` and the other arguments of a contract (`cast_weights`, `split_k`, …, docs/error-budgets.md) say how the result was
    computed; without them it may be what eager or fused code gives.

    Raises ValueError for inputs that the dtype cannot represent, of a wrong shape, or a name or choice that is none; TypeError for
    what is no array, for missing or unknown arguments and for `rtol`, `atol` and `tol`. One line each.
    """
    _no_tolerance("within_rounding", options)
    given, found = _numbers(got, "got")
    if dtype is None and found not in DTYPES:
        raise TypeError(f"got: expected an array of {', '.join(DTYPES)}, got {found}")
    question = _question("within", step, dtype or found, inputs, options, conventions, like, accumulate, mode)
    told = _answer(question | {"got": given, "got_dtype": found})
    told["index"] = tuple(told.get("index", ()))
    return Rounding(**told)


def assert_within_rounding(step: str, got: Any, *inputs: Any, **options: Any) -> None:
    """Raise AssertionError, saying what is off and by how much, unless `within_rounding` of the same arguments is true."""
    __tracebackhide__ = True
    _no_tolerance("assert_within_rounding", options)
    found = within_rounding(step, got, *inputs, **options)
    if not found:
        raise AssertionError(str(found))


def tolerance(
    step: str,
    *inputs: Any,
    dtype: Any,
    accumulate: str | None = None,
    mode: str | None = None,
    conventions: str | Mapping[str, Any] | None = None,
    like: str | None = None,
    **options: Any,
) -> np.ndarray:
    """By how much each element of `step(*inputs, **options)` may be off in `dtype`: float64, of the result's shape.

    For those who must have a number. `within_rounding` sees more: faults too small for any element show in sums of them. Infinite
    where a correct computation may overflow; 0 where the exact result is not finite. Arguments and errors are `within_rounding`'s.
    """
    _no_tolerance("tolerance", options)
    return _answer(_question("tolerance", step, dtype, inputs, options, conventions, like, accumulate, mode))["array"]


def oracle(
    step: str,
    *inputs: Any,
    conventions: str | Mapping[str, Any] | None = None,
    like: str | None = None,
    **options: Any,
) -> Any:
    """What `step(*inputs, **options)` is exactly, in float64; arguments and errors are `within_rounding`'s.

    An array, or of a step with several results, as `attention_backward`, a dict of them.
    """
    return _answer(_question("oracle", step, "float64", inputs, options, conventions, like, None, None))["array"]


def _no_tolerance(function: str, options: Mapping[str, Any]) -> None:
    if chosen := [name for name in TOLERANCES if name in options]:
        raise TypeError(
            f"{function}() takes no {chosen[0]}: what rounding may do differs from element to element and is derived from the "
            "inputs, so declare how the result is computed (accumulate=, mode=) or get the numbers from veriformer.tolerance()"
        )


# Arrays of any library, as NumPy's ------------------------------------------------------------------------------------


def _question(
    what: str,
    step: str,
    dtype: Any,
    inputs: tuple[Any, ...],
    options: Mapping[str, Any],
    conventions: str | Mapping[str, Any] | None,
    like: str | None,
    accumulate: str | None,
    mode: str | None,
) -> dict[str, Any]:
    declared = {"accumulate": accumulate, "mode": mode}
    return {
        "what": what,
        "step": step,
        "dtype": _dtype(dtype),
        "args": [_nested(value, f"input {i}") for i, value in enumerate(inputs)],
        "options": {name: _nested(value, name) for name, value in options.items()},
        "conventions": conventions,
        "like": like,
        "contract": {name: value for name, value in declared.items() if value is not None},
    }


def _dtype(dtype: Any) -> str:
    """The name of a dtype of any library. Raises ValueError for one that no budget is known for."""
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, str) or str(dtype).startswith("torch.") else None
    if name is None:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype)
    if name not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {name!r}")
    return name


def _nested(value: Any, name: str) -> Nested:
    """Arguments with every array a NumPy one: float64, int64 or bool."""
    if isinstance(value, Mapping):
        return {str(key): _nested(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return value if isinstance(value, PLAIN) else _numbers(value, name)[0]


def _numbers(value: Any, name: str) -> tuple[np.ndarray, str]:
    """An array of any library as float64, int64 or bool, and the name of its own dtype. Raises TypeError for what is none."""
    array, dtype = _of_torch(value) if type(value).__module__.partition(".")[0] == "torch" else _of_others(value, name)
    if dtype in ("bool", "bool_"):
        return array.astype(bool), "bool"
    if dtype.startswith(("int", "uint")):
        return array.astype(np.int64), dtype
    if dtype in DTYPES:
        return array.astype(np.float64), dtype
    raise TypeError(f"{name}: expected numbers of {', '.join(DTYPES)}, integers or truth values, got {dtype}")


def _of_torch(value: Any) -> tuple[np.ndarray, str]:
    import torch

    if not isinstance(value, torch.Tensor):
        return _of_others(value, type(value).__name__)
    plain = value.detach().cpu()
    return (plain.double() if plain.is_floating_point() else plain).numpy(), str(value.dtype).removeprefix("torch.")


def _of_others(value: Any, name: str) -> tuple[np.ndarray, str]:
    take = np.asarray if hasattr(value, "__array__") else np.from_dlpack if hasattr(value, "__dlpack__") else None
    if take is None:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}, which has neither __array__ nor __dlpack__")
    try:
        array = take(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}: {reason}") from None
    return array, array.dtype.name


# Who answers ----------------------------------------------------------------------------------------------------------


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    """Here, or beside a project whose packages are called as ours. Raises what the answer says is wrong with the question."""
    if _taken():
        return _beside.ask(question)
    from veriformer import judging

    return judging.answer(question)


@cache
def _taken() -> bool:
    """Whether this process has, or would import, a package of another project under one of our names."""
    return packages.mistaken() is not None


class _Beside:
    """A process that answers for this one, started by the first question, and ending with this process."""

    def __init__(self) -> None:
        self.lock, self.process, self.of = threading.Lock(), None, 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises RuntimeError where the process is gone."""
        from veriformer.isolation import wire

        with self.lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(wire.encode(question))
                process.stdin.flush()
                told = wire.receive(lambda count: _exactly(process, count))
            except (EOFError, OSError):
                self.process = None
                raise RuntimeError("the process that judges for veriformer has ended; its own words are on stderr") from None
        if "raised" in told:
            raise {"ValueError": ValueError, "TypeError": TypeError}.get(told["raised"], RuntimeError)(told["message"])
        return told

    def _started(self) -> subprocess.Popen[bytes]:
        """The process; another one after a fork, which must not read the answers to its parent."""
        if self.process is None or self.of != os.getpid():
            start = packages.standing_alone("properties.run.subprocesses").start
            command = [sys.executable, "-P", "-m", "veriformer.judging"]
            self.process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.of = os.getpid()
            atexit.register(self.process.terminate)
        return self.process


def _exactly(process: subprocess.Popen[bytes], count: int) -> bytearray:
    assert process.stdout is not None
    data = process.stdout.read(count)
    if len(data) < count:
        raise EOFError
    return bytearray(data)


_beside = _Beside()
