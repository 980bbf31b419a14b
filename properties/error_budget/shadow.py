"""The array that the oracle is handed: an exact float64 matrix, with a shadow that says how far correct ones stray from it.

To the oracle (and to its shape annotations) it is an ordinary matrix holding exact numbers. Behind every element stand one or
several others, the *shadow*, an array with one more axis in front; what they mean is the machine's affair: trials of a rounding
computation (`trials`), or a proven bound of the error (`worst_case`).

NumPy functions that build new arrays would silently drop a subclass: the ones the oracle uses are taught here what to do with a
shadow, and any other one raises TypeError.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np

from reference.trace import Trace

Stored = frozenset[int]  # which of a machine's contracts have this matrix in the storage dtype already


class Machine(Protocol):
    """How shadows are computed. `exact` is always the result that has no rounding."""

    def given(self, exact: np.ndarray) -> "Shadowed":
        """An argument of the step: everybody starts from the same numbers."""
        ...

    def lift(self, operand: Any, ndim: int) -> np.ndarray:
        """The shadow of an operand (a constant or a table has one too) with `ndim` axes behind the first."""
        ...

    def elementwise(self, ufunc: np.ufunc, operands: Sequence[Any], exact: np.ndarray) -> np.ndarray:
        """The shadow of ufunc(*operands)."""
        ...

    def matmul(self, A: "Shadowed", B: "Shadowed", exact: np.ndarray) -> np.ndarray:
        """The shadow of A B."""
        ...

    def sum(self, X: "Shadowed", exact: np.ndarray) -> np.ndarray:
        """The shadow of the sums of X's rows, kept as columns."""
        ...

    def largest(self, X: "Shadowed", initial: float) -> np.ndarray:
        """The shadow of the largest number of each row, kept as columns."""
        ...

    def store(self, name: str, X: "Shadowed") -> "Shadowed":
        """X as it is after the computation has written it under this name."""
        ...


class Shadowed(np.ndarray):
    """A float64 (or bool) matrix with a shadow.

    Of where it comes from it remembers what a correct implementation may postpone or rearrange: the two operands of a difference
    (x − m, so that (x − m)/s may be x/s − m/s), how many products were summed into it (a bias may be the first of them), of which
    two matrices it is the product (A·B/s may be (A/s)·B), and whether it comes out of a matrix product and was not stored since
    (equal numbers of it need not be stored as equal ones).
    """

    shadow: np.ndarray
    machine: Machine
    stored: Stored
    difference_of: tuple[Any, Any] | None = None
    products: int = 0
    product_of: "tuple[Shadowed, Shadowed] | None" = None
    apart: bool = False

    def __new__(cls, exact: Any, shadow: np.ndarray, machine: Machine, stored: Stored = frozenset()) -> Self:
        """The matrix `exact` with `shadow` behind it."""
        array = np.asarray(exact).view(cls)
        array.shadow, array.machine, array.stored = shadow, machine, stored
        return array

    @property
    def exact(self) -> np.ndarray:
        """The matrix without its shadow."""
        return self.view(np.ndarray)

    def strayed(self, trials: int) -> np.ndarray:
        """How far each trial's matrix is from the exact one, (trials, *shape)."""
        with np.errstate(all="ignore"):
            errors = self.shadow - self.exact
        return np.broadcast_to(errors, (trials, *self.shape))

    def behind(self, ndim: int) -> np.ndarray:
        """The shadow with `ndim` axes behind the first, so that it broadcasts as the matrix does."""
        missing = ndim - self.ndim
        return self.shadow if not missing else self.shadow.reshape(len(self.shadow), *(1,) * missing, *self.shape)

    def moved(self, exact: Any, shadow: np.ndarray) -> "Shadowed":
        """The same numbers in another place: nothing is rounded, what was stored stays stored."""
        result = Shadowed(exact, shadow, self.machine, self.stored)
        result.apart = self.apart
        return result

    def __repr__(self) -> str:
        return f"Shadowed({self.exact!r}, {len(self.shadow)} behind each element)"

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        return self.moved(self.exact[key], self.shadow[(slice(None), *keys)])

    @property
    def T(self) -> "Shadowed":
        """The transposed matrix."""
        return self.moved(self.exact.T, self.shadow.transpose(0, *range(self.ndim, 0, -1)))

    def reshape(self, *shape: Any, **_: Any) -> "Shadowed":
        """The same elements in another shape."""
        exact = self.exact.reshape(*shape)
        return self.moved(exact, self.shadow.reshape(len(self.shadow), *exact.shape))

    def astype(self, dtype: Any, *_: Any, **__: Any) -> "Shadowed":
        """Only to float64, which every matrix of the oracle is already."""
        if np.dtype(dtype) != np.float64:
            raise TypeError(f"the oracle computes in float64; got astype({dtype})")
        return self

    def sum(self, axis: Any = None, *, keepdims: bool = False) -> "Shadowed":  # type: ignore[override]
        """The sums of rows, as a column; or of the columns of a matrix, as a row of numbers."""
        if axis == 0 and not keepdims and self.ndim == 2:
            sums = self.exact.sum(axis=0)
            return Shadowed(sums[:, None], self.machine.sum(self.T, sums[:, None]), self.machine)[:, 0]
        _must_be_of_rows("sum", axis, keepdims)
        exact = self.exact.sum(axis=-1, keepdims=True)
        return Shadowed(exact, self.machine.sum(self, exact), self.machine)

    def mean(self, axis: Any = None, *, keepdims: bool = False) -> "Shadowed":  # type: ignore[override]
        """The means of rows: their sums, divided."""
        return self.sum(axis=axis, keepdims=keepdims) / float(self.shape[-1])  # type: ignore[return-value]

    def max(self, axis: Any = None, *, keepdims: bool = False, initial: float = -np.inf) -> "Shadowed":  # type: ignore[override]
        """The largest numbers of rows."""
        _must_be_of_rows("max", axis, keepdims)
        exact = self.exact.max(axis=-1, keepdims=True, initial=initial)
        return Shadowed(exact, self.machine.largest(self, initial), self.machine)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            raise TypeError(f"the rounding simulator does not know how {ufunc.__name__}.{method} rounds")
        exact = np.asarray(ufunc(*(x.exact if isinstance(x, Shadowed) else x for x in inputs)))
        if exact.dtype == object:  # a Python function, made a ufunc by frompyfunc
            exact = exact.astype(np.float64)
        if ufunc is np.matmul:
            result = Shadowed(exact, self.machine.matmul(inputs[0], inputs[1], exact), self.machine)
            result.products, result.product_of, result.apart = inputs[0].shape[-1], (inputs[0], inputs[1]), True
            return result
        result = Shadowed(exact, self.machine.elementwise(ufunc, inputs, exact), self.machine)
        result.apart = any(isinstance(x, Shadowed) and x.apart for x in inputs)
        if ufunc is np.subtract:
            result.difference_of = inputs[0], inputs[1]
        return result

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        if function not in FUNCTIONS:
            raise TypeError(f"the rounding simulator does not know what {function.__name__} does to a shadow")
        return FUNCTIONS[function](self, *args, **kwargs)


def is_parameter(operand: Any) -> bool:
    """Whether this is an argument of the step that holds a number for each feature: a bias or a gain."""
    return isinstance(operand, Shadowed) and operand.ndim == 1 and bool(operand.stored)


def difference(operand: Any) -> tuple[Any, Any] | None:
    """The x and m of an operand that is x − m."""
    return operand.difference_of if isinstance(operand, Shadowed) else None


def scaled_product(ufunc: np.ufunc, operands: Sequence[Any]) -> "tuple[Shadowed, Shadowed] | None":
    """The A and B of an operation that is A·B times, or divided by, one number."""
    if ufunc not in (np.multiply, np.divide) or isinstance(operands[1], Shadowed) or np.ndim(operands[1]):
        return None
    return operands[0].product_of if isinstance(operands[0], Shadowed) else None


def _must_be_of_rows(what: str, axis: Any, keepdims: bool) -> None:
    if axis != -1 or not keepdims:
        raise TypeError(f"the oracle takes every {what} over rows, as a column; got axis={axis}, keepdims={keepdims}")


def _where(one: Shadowed, condition: Any, yes: Any, no: Any) -> Shadowed:
    exact = np.where(*(x.exact if isinstance(x, Shadowed) else x for x in (condition, yes, no)))
    machine = one.machine
    return one.moved(exact, np.where(*(machine.lift(x, exact.ndim) for x in (condition, yes, no))))


def _joined(function: Callable[..., np.ndarray]) -> Callable[..., Shadowed]:
    """stack and concatenate: the shadows are joined along the same axis, counted from the end."""

    def join(one: Shadowed, arrays: Sequence[Shadowed], axis: int = 0) -> Shadowed:
        exact = function([x.exact for x in arrays], axis=axis)
        shadows = [x.shadow for x in arrays]
        deep = max(map(len, shadows))
        shadows = [shadow if len(shadow) == deep else np.broadcast_to(shadow, (deep, *shadow.shape[1:])) for shadow in shadows]
        result = Shadowed(exact, function(shadows, axis=axis if axis < 0 else axis + 1), one.machine)
        result.stored, result.apart = frozenset.intersection(*(x.stored for x in arrays)), any(x.apart for x in arrays)
        return result

    return join


def _broadcast(_: Shadowed, array: Shadowed, shape: tuple[int, ...]) -> Shadowed:
    shadow = np.broadcast_to(array.behind(len(shape)), (len(array.shadow), *shape))
    return array.moved(np.broadcast_to(array.exact, shape), shadow)


def _counted(one: Shadowed, *args: Any, **kwargs: Any) -> Shadowed:
    return one.machine.given(np.arange(*args, **kwargs))


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.where: _where,
    np.stack: _joined(np.stack),
    np.concatenate: _joined(np.concatenate),
    np.arange: _counted,
    np.broadcast_to: _broadcast,
    np.shape: lambda one, _: one.exact.shape,
    np.ndim: lambda one, _: one.exact.ndim,
}
"""What the oracle's array-building functions do to a shadow; the first argument is one of the shadowed arrays among the others."""


class Storing(Trace):
    """A trace that lets the machine store every named matrix, and the steps go on with what it stored."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def keep(self, name: str, matrix: np.ndarray) -> np.ndarray:
        """Store `matrix` as the contract says."""
        if not isinstance(matrix, Shadowed):
            raise TypeError(f"{name} lost its shadow on the way")
        stored = self.machine.store(name.rpartition(".")[2], matrix)
        stored.product_of = matrix.product_of
        return super().keep(name, stored)


def shadowed(value: Any, machine: Machine) -> Any:
    """Nested arguments of a step with every float64 array exact and in the dtype already; masks and token ids stay as they are."""
    if isinstance(value, dict):
        return {key: shadowed(item, machine) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shadowed(item, machine) for item in value)
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return machine.given(value)
    return value
