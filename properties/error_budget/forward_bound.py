"""The worst case: a bound of the error, carried along with every number and proven for every correct order of doing things.

Behind each exact number stands how far a correct one can be from it: the errors of the operands go through the operation
exactly as they can at worst, and each rounding adds u times the number. A sum of n terms adds γₙ = n·u/(1 − n·u) times the sum
of their sizes (Higham 2002, section 3.1), with four operations a term: an online softmax rescales what it has summed so far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from properties.error_budget.shadow import Shadowed, difference, is_parameter, scaled_product
from properties.implementations.contract import KAPPA, Contract
from properties.implementations.formats import Format

PER_TERM, AROUND = 4, 8  # operations for each term of a sum, and around the sum
COMPARISONS = frozenset({np.equal, np.not_equal, np.less, np.greater})


class WorstCase:
    """The shadow is a bound of the error; of a truth value, the truth value itself."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.inside = contract.inside

    def given(self, exact: np.ndarray) -> Shadowed:
        """Arguments have no error, but where they are subnormal and flushed."""
        sizes = np.abs(exact)[None]
        flushed = (sizes < self.contract.storage.smallest_normal) & self.contract.flush_to_zero
        return Shadowed(exact, np.where(flushed, sizes, 0.0), self, frozenset((0,)))

    def lift(self, operand: Any, ndim: int) -> np.ndarray:
        """Constants are rounded, tables are good to κ units."""
        if isinstance(operand, Shadowed):
            return operand.behind(ndim)
        value = np.asarray(operand)
        if value.dtype == bool:
            return value[None]
        value = np.where(np.isfinite(value), np.abs(value), 0.0).astype(np.float64)
        units = 1.0 if value.ndim == 0 else 1.0 + self.contract.kappa("table")
        return (units * self.inside.u * value).reshape(1, *(1,) * (ndim - value.ndim), *value.shape)

    def elementwise(self, ufunc: np.ufunc, operands: Sequence[Any], exact: np.ndarray) -> np.ndarray:
        """The operands' errors at their worst, and the operation's own rounding."""
        if ufunc in COMPARISONS:
            return exact[None]
        values = [np.asarray(x.exact if isinstance(x, Shadowed) else x)[None] for x in operands]
        sizes = [np.where(np.isfinite(value), np.abs(value), 0.0) for value in values]
        errors = [self.lift(x, exact.ndim) for x in operands]
        if ufunc in (np.add, np.multiply) and is_parameter(operands[1]) and self.contract.mode == "eager":
            errors[0] = self._rounded(values[0], errors[0], self.contract.storage)  # what meets a parameter may have been stored
        if (product := scaled_product(ufunc, operands)) is not None and self.contract.mode == "eager":
            errors[0] = errors[0] + self._of_scaled_operand(ufunc, product, float(operands[1]))
        name = ufunc.__name__.split(" ")[0]
        u = self.inside.u
        size = 1.0 if name == "erf" else np.abs(exact)  # see KAPPA
        kappa = self.contract.kappa(name) * u * size if name in KAPPA else 0.0
        match name:
            case "maximum" | "minimum":
                return np.broadcast_to(np.maximum(*errors), (1, *exact.shape))
            case "negative" | "absolute":
                return errors[0]
            case "add" if is_parameter(operands[1]) and isinstance(
                operands[0], Shadowed
            ):  # a bias may be the first term of the sum
                error = errors[0] + errors[1] + self._gamma(operands[0].products) * sizes[1]
            case "add" | "subtract":
                error = errors[0] + errors[1]
            case "multiply":
                error = sizes[0] * errors[1] + errors[0] * sizes[1] + errors[0] * errors[1]
            case "divide":  # by way of a reciprocal, of a difference or of its parts
                room = np.maximum(sizes[1] - errors[1], 0.0)
                parts = 2 * u * (sizes[0] + errors[0]) + 2 * u * self._size_of_parts(operands[0], exact.ndim)
                error = (errors[0] + np.abs(exact) * errors[1] + parts) / room
            case "exp":  # to base 2: the argument is rescaled, or its parts are
                rescaled = 2 * u * (sizes[0] + self._size_of_parts(operands[0], exact.ndim))
                error = np.exp(values[0] + errors[0] + rescaled) - exact + kappa
            case "sqrt":
                error = exact - np.sqrt(np.maximum(values[0] - errors[0], 0.0)) + kappa
            case "log":  # as steep as at the near end of where its argument may be
                error = np.abs(exact - np.log(np.maximum(values[0] - errors[0], 0.0))) + kappa
            case "erf":
                error = errors[0] * 2 / np.sqrt(np.pi) + kappa
            case "tanh" | "sin" | "cos":
                error = errors[0] + kappa
            case _:
                raise TypeError(f"the rounding simulator does not know how {name} rounds")
        return self._rounded(exact, error)

    def matmul(self, A: Shadowed, B: Shadowed, exact: np.ndarray) -> np.ndarray:
        """Every product's error, and γₙ of the sizes of all products."""
        cut = 0.0 if self.contract.operands is None else self.contract.operands.u
        a, b = np.abs(A.exact)[None], np.abs(B.exact)[None]
        error_a, error_b = A.shadow * (1 + cut) + cut * a, B.shadow * (1 + cut) + cut * b
        error = a @ error_b + error_a @ b + error_a @ error_b
        size = (a + error_a) @ (b + error_b)
        return self._rounded(exact, error + self._gamma(A.shape[-1]) * size + self._flushed(A.shape[-1]) + self._in_parts(size))

    def sum(self, X: Shadowed, exact: np.ndarray) -> np.ndarray:
        """Every term's error, and γₙ of the terms' sizes."""
        size = (np.abs(X.exact)[None] + X.shadow).sum(axis=-1, keepdims=True)
        error = X.shadow.sum(axis=-1, keepdims=True) + self._gamma(X.shape[-1]) * size
        return self._rounded(exact, error + self._flushed(X.shape[-1]))

    def largest(self, X: Shadowed, initial: float) -> np.ndarray:  # noqa: ARG002 (every machine is asked the same way)
        """The largest moves by no more than the one that moves most."""
        return X.shadow.max(axis=-1, keepdims=True, initial=0.0)

    def store(self, name: str, X: Shadowed) -> Shadowed:
        """One more rounding, to the storage dtype, unless the matrix is in it already."""
        if not self.contract.stores(name) or X.stored or self.contract.storage is self.inside:
            return X
        return Shadowed(X.exact, self._rounded(X.exact, X.shadow, self.contract.storage), self, frozenset((0,)))

    def _of_scaled_operand(self, ufunc: np.ufunc, product: tuple[Shadowed, Shadowed], number: float) -> np.ndarray | float:
        """What A·B loses where A is scaled by the number and stored before: a rounding of each of its numbers."""
        storage, (A, B) = self.contract.storage, product
        if storage is self.inside or not number:
            return 0.0
        least = storage.smallest_normal if self.contract.flush_to_zero else storage.smallest
        lost = storage.u * (np.abs(A.exact) + A.shadow) + least * (abs(number) if ufunc is np.divide else 1 / abs(number))
        lost, b = np.where(np.isfinite(lost), lost, 0.0), np.abs(B.exact) + B.shadow
        return lost @ np.where(np.isfinite(b), b, 0.0)

    def _size_of_parts(self, operand: Any, ndim: int) -> np.ndarray | float:
        """|x| + |m| and their errors, of an operand x − m: what it loses when both are scaled and rounded first."""
        parts = difference(operand)
        if parts is None:
            return 0.0
        sizes = [np.abs(np.asarray(x.exact if isinstance(x, Shadowed) else x)) + self.lift(x, ndim) for x in parts]
        return np.where(np.isfinite(sizes[0]), sizes[0], 0.0) + np.where(np.isfinite(sizes[1]), sizes[1], 0.0)

    def _gamma(self, terms: int) -> float:
        operations = (PER_TERM * terms + AROUND) * self.inside.u
        return operations / (1 - operations) if operations < 1 else np.inf

    def _flushed(self, terms: int) -> float:
        """What a sum loses where each of its terms becomes 0."""
        return terms * self.inside.smallest_normal if self.contract.flush_to_zero else 0.0

    def _in_parts(self, size: np.ndarray) -> np.ndarray | float:
        """What a sum of products of this size loses where its parts are stored, and added up in the storage dtype."""
        parts, storage = self.contract.split_k, self.contract.storage
        if parts == 1 or storage is self.inside:
            return 0.0
        least = storage.smallest_normal if self.contract.flush_to_zero else storage.smallest
        return ((1 + storage.u) ** (2 * parts) - 1) * size + 2 * parts * least

    def _rounded(self, exact: np.ndarray, error: np.ndarray, to: Format | None = None) -> np.ndarray:
        to = to or self.inside
        least = to.smallest_normal if self.contract.flush_to_zero else to.smallest / 2
        error = error + to.u * (np.abs(exact) + error) + least
        return np.where(np.isfinite(exact), np.where(np.isnan(error), np.inf, error), 0.0)
