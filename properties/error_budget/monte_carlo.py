"""Trials: the oracle run many times at once, each time rounding as one correct machine might.

Every result x becomes RN(x·t)/t, with one t for each operation and trial: t = 1 half of the time (the true grid, so that effects
of the lattice survive), else a power 2^−U(0,1) (another grid of the same fineness). Equal numbers err alike, as they do in
reality. On the trials with t ≠ 1 the machine also takes the liberties a contract allows: a division multiplies by a reciprocal,
and a difference that is divided becomes x/s − m/s; an exponential is taken to base 2, of x·c − m·c; a bias is the first term of
the sum it is added to; and an eager implementation stores what meets a parameter (the normalised row before its gain, the
product before its bias), and divides Q and stores it, where it is Q·Kᵀ that is to be divided.

A sum of n terms, in whatever order, deviates by 0.42·u·√(n·max(S²/3 + Q/6, P)) with S the sum, Q the sum of squares and P the
mean square of the partial sums; if all terms are equal their errors are too, and √n becomes n. Where the terms have few bits
their errors may all point the same way: a sum deviates at least by what it does when really added one after another on the true
grid. The deviation is a function of the sum's exact value, so equal sums err alike. In a quarter of the trials the columns of a
matrix product do not: those that fill a vector and those left over are added up by different code, and a LayerNorm of what should
be a constant row then makes 1/√eps times as much of it. Nor do, in another quarter, the numbers that a function such as erf is
taken of: again those left over have other code, and where equal tokens' gradients cancel, that is all that is left of them.

Doubled trials round in the same way and err twice as much each time: R(x) = x + 2·(RN(x·t)/t − x). What one correct run in
thousands meets (a LayerNorm of two features that are nearly equal, and come out the other way round) is frequent among them. So is
what only one in many thousands does. One is to store equal columns of a matrix product as neighbours, for the middle of two
numbers lies between them: in a quarter of the doubled trials each number of a product moves by up to a half of its last place by
itself, and then is stored. Another is that numbers of few bits all err alike, for t is nearly 1 and the grid shifts them together:
where a dtype of eleven bits or fewer is stored, it is in an eighth of them.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from properties.error_budget.shadow import Shadowed, difference, is_parameter, scaled_product
from properties.implementations.contract import UNSCALED, Contract
from properties.implementations.formats import Format

SPREAD = 0.42  # standard deviation of rounding to nearest, in units of u times the number (the middle of a binade and its ends)
NOT_ROUNDED = frozenset({np.maximum, np.minimum, np.negative, np.absolute, np.equal, np.not_equal, np.less, np.greater})
NEAR = 1 / 8  # of the doubled trials, in which t is 1 but for less than two roundings
APART = 2.0**-0.5  # of t, a quarter of the trials: in these, columns of a matrix product err each in its own way
OWN_CODE = 1 / 4  # of the trials: in these, a function errs at each place in its own way
LANES = (1, 2, 4, 8, 16)  # sums side by side
BLOCKS = 16  # partial sums of a long matrix product that are looked at
CACHED = 2**15  # numbers in the trials of a matrix that are rounded at once
WHOLE = 2**16  # products of numbers in a matrix product up to which all partial sums are


class Trials:
    """`count` trials for each contract; the contracts share the dtype and what they accumulate in.

    With `doubled` all contracts are there a second time, for trials that err twice as much.
    """

    def __init__(
        self, contracts: Sequence[Contract], count: int, seed: int, *, inside: Format | None = None, doubled: bool = False
    ) -> None:
        self.contracts, self.count = tuple(contracts) * (2 if doubled else 1), count
        self._doubled = slice(count * len(contracts), None)
        self.rng = np.random.default_rng(seed)
        self.inside = inside or contracts[0].inside
        self.storage = self.inside if inside else contracts[0].storage
        self._operands = contracts[0].operands
        self._parts = contracts[0].split_k if self.storage is not self.inside else 1
        narrow = [each.u for each in (self.storage, self._operands) if each and each.bits < self.inside.bits]
        self._coarsest = max(narrow, default=0.0)
        self._grids: Iterator[np.ndarray] = iter(())
        self._of_contracts: dict[tuple[int, ...], np.ndarray] = {}

    def given(self, exact: np.ndarray) -> Shadowed:
        """The same number in every trial; where subnormal numbers are flushed, in half of them those are 0 already."""
        shadow, least = exact[None], self.storage.smallest_normal
        if self.contracts[0].flush_to_zero and (subnormal := (np.abs(shadow) < least) & (shadow != 0)).any():
            flushing = np.arange(self.count * len(self.contracts)).reshape(self._one_each(exact.ndim)) % 2 == 1
            shadow = np.where(subnormal & flushing, 0.0, shadow)
        return Shadowed(exact, shadow, self, frozenset(range(len(self.contracts))))

    def lift(self, operand: Any, ndim: int) -> np.ndarray:
        """Constants and tables are rounded too: a machine has them in its own dtype."""
        if isinstance(operand, Shadowed):
            return operand.behind(ndim)
        value = np.asarray(operand)[None]
        if value.dtype != np.float64 or not np.isfinite(value).all():
            return value
        value = value.reshape(1, *(1,) * (ndim - value.ndim + 1), *value.shape[1:])
        if value.size == 1:
            return value if _is_power_of_two(value.item()) else self._rounded(value, self._grid(ndim))
        return self._off_by("table", value[0], self._rounded(value, self._grid(ndim)))

    def elementwise(self, ufunc: np.ufunc, operands: Sequence[Any], exact: np.ndarray) -> np.ndarray:
        """One operation on each element, rounded once; and the liberties that the operation allows."""
        values = [self.lift(operand, exact.ndim) for operand in operands]
        if ufunc in NOT_ROUNDED or (ufunc in (np.multiply, np.divide) and any(map(_is_power_of_two, operands))):
            return ufunc(*values)
        grid = self._grid(exact.ndim)
        name = ufunc.__name__.partition(" ")[0]  # "erf (vectorized)": a Python function that frompyfunc made a ufunc
        if (product := scaled_product(ufunc, operands)) is not None:
            values[0] = values[0] + self._of_scaled_operand(ufunc, product, operands[1], grid)
        if ufunc is np.subtract:
            result = values[0] - values[1]
        elif ufunc is np.divide:
            result = self._quotient(values[0], values[1], difference(operands[0]), grid)
        elif ufunc is np.exp:
            result = self._off_by("exp", exact, np.exp(self._to_base_2(values[0], difference(operands[0]), grid)))
        elif name == "erf":
            from scipy.special import erf  # here: it takes a third of a second to import, and GELU alone asks for it

            result = erf(values[0]) + (self._off_by("erf", exact, np.ones_like(values[0])) - 1.0)  # units of 1: see KAPPA
        elif name in ("tanh", "sin", "cos", "sqrt", "log"):
            result = self._off_by(name, exact, ufunc(*values))
        elif ufunc in (np.add, np.multiply):
            if is_parameter(operands[1]):
                values[0] = self._stored_if_eager(values[0], grid)
            result = ufunc(*values)
            if ufunc is np.add and is_parameter(operands[1]) and isinstance(operands[0], Shadowed) and operands[0].products:
                result = result + np.where(
                    grid == 1.0, 0.0, self._deviating(exact, np.sqrt(operands[0].products) * np.abs(values[1]))
                )
        else:
            raise TypeError(f"the rounding simulator does not know how {ufunc.__name__} rounds")
        return self._rounded(result, self._grid(exact.ndim))

    def matmul(self, A: Shadowed, B: Shadowed, exact: np.ndarray) -> np.ndarray:
        """All products of the row and the column summed in an unknown order, and rounded."""
        a, b = self._operand(A), self._operand(B)
        terms, a_exact, b_exact = A.shape[-1], A.exact, B.exact
        squares = (a_exact * a_exact) @ (b_exact * b_exact)
        if A.size * B.shape[-1] <= WHOLE:
            products = a_exact[:, None, :] * b_exact.T[None]
            partial, drift = _mean_square_of_partial_sums(products)[..., 0], self._drift(products, exact[..., None])[..., 0]
        else:
            partial, drift = _mean_square_of_partial_products(a_exact, b_exact), 0.0
        result = self._in_parts(a, b, terms) if self._parts > 1 and terms > 1 else _times(a, b)
        return self._summed(result, exact, squares, partial, drift, terms, alike=False)

    def _in_parts(self, a: np.ndarray, b: np.ndarray, terms: int) -> np.ndarray:
        """The product of each part of the inner axis stored, and added up in the storage dtype; which terms are a part is unknown.

        In half of the trials each part is a run of neighbours, in the others every so many-th term.
        """
        grid, count = self._grid(a.ndim - 1), self.count * len(self.contracts)
        order = np.arange(terms)
        neighbours, strided = (np.array_split(order, self._parts), [order[i :: self._parts] for i in range(self._parts)])
        sums = []
        for parts in (neighbours, strided):
            total = 0.0
            for part in (part for part in parts if part.size):
                stored = self._rounded(a[..., part] @ b[..., part, :], grid, self.storage)
                total = self._rounded(total + stored, grid, self.storage)
            sums.append(total)
        return np.where(np.arange(count).reshape(grid.shape) % 2 == 1, *sums)

    def sum(self, X: Shadowed, exact: np.ndarray) -> np.ndarray:
        """All numbers of the row summed in an unknown order, and rounded."""
        squares = np.square(X.exact).sum(axis=-1, keepdims=True)
        partial, drift = _mean_square_of_partial_sums(X.exact), self._drift(X.exact, exact)
        return self._summed(X.shadow.sum(axis=-1, keepdims=True), exact, squares, partial, drift, X.shape[-1])

    def largest(self, X: Shadowed, initial: float) -> np.ndarray:
        """Choosing rounds nothing."""
        return X.shadow.max(axis=-1, keepdims=True, initial=initial)

    def store(self, name: str, X: Shadowed) -> Shadowed:
        """Rounded to the storage dtype by the contracts that store this matrix, unless it is in that dtype already."""
        storing = [i for i, contract in enumerate(self.contracts) if contract.stores(name) and i not in X.stored]
        if not storing:
            return X
        stored = X.stored.union(storing)
        storage = self.storage.unlimited if name in UNSCALED else self.storage
        if self.storage is self.inside:
            return Shadowed(X.exact, X.shadow, self, stored)
        shadow, grid = X.behind(X.ndim), self._grid(X.ndim)
        rounded = self._rounded(shadow, grid, storage)
        if X.apart:
            self._store_apart(rounded, shadow, grid)
        if len(storing) < len(self.contracts):
            rounded = np.where(self._trials_of(storing).reshape(grid.shape), rounded, shadow)
        return Shadowed(X.exact, rounded, self, stored)

    def _store_apart(self, rounded: np.ndarray, values: np.ndarray, grid: np.ndarray) -> None:
        """Round `values` anew in a quarter of the doubled trials, so that equal ones come out as neighbours."""
        start, storage = self._doubled.start, self.storage
        which = start + np.flatnonzero(grid[start:] < APART)
        if len(which):
            moved = 1.0 + storage.u / 2 * self.rng.uniform(-1.0, 1.0, (len(which), *values.shape[1:]))
            rounded[which] = storage.to_nearest(values[which] * moved * grid[which]) / grid[which]

    def _grid(self, ndim: int) -> np.ndarray:
        """t for each trial of one operation."""
        grid = next(self._grids, None)
        if grid is None:
            kind, exponent = self.rng.random((2, 64, *self._one_each(2)))
            grids = np.where(kind < 0.5, 1.0, np.exp2(-exponent))
            doubled = (slice(None), self._doubled)
            near = np.exp2(-2.0 * self._coarsest * exponent[doubled])
            grids[doubled] = np.where((kind[doubled] > 1.0 - NEAR) & (near < 1.0), near, grids[doubled])
            self._grids = iter(grids)
            grid = next(self._grids)
        return grid if ndim == 2 else grid.reshape(self._one_each(ndim))

    def _one_each(self, ndim: int) -> tuple[int, ...]:
        """The shape of one number for each trial."""
        return (self.count * len(self.contracts), *(1,) * ndim)

    def _trials_of(self, contracts: Sequence[int]) -> np.ndarray:
        """Which trials are of the contracts with these numbers."""
        key = tuple(contracts)
        if key not in self._of_contracts:
            self._of_contracts[key] = np.repeat([number in key for number in range(len(self.contracts))], self.count)
        return self._of_contracts[key]

    def _rounded(self, values: np.ndarray, grid: np.ndarray, to: Format | None = None) -> np.ndarray:
        """Each number on its trial's grid. Some trials at a time, so that what is between the operations stays in the cache."""
        result = np.empty(np.broadcast_shapes(values.shape, grid.shape))
        for trials in _few_at_a_time(result):
            some = values if len(values) == 1 else values[trials]
            result[trials] = rounded = self._on_the_grid(some, grid[trials], to or self.inside)
            twice = slice(max(self._doubled.start - trials.start, 0), None)
            error = rounded[twice] - (some if len(values) == 1 else some[twice])
            result[trials][twice] += error if np.isfinite(error).all() else np.where(np.isfinite(rounded[twice]), error, 0.0)
        return result

    def _on_the_grid(self, values: np.ndarray, grid: np.ndarray, to: Format) -> np.ndarray:
        result = to.to_nearest(values * grid)
        result /= grid
        size = np.abs(result)
        if to.name == "float16" and size.max(initial=0.0) > to.largest:  # no grid ends before or behind the format's own
            over = (size > to.largest) & np.isfinite(to.to_nearest(values))
            result = np.where(over, np.copysign(to.largest, result), result)
        subnormal = size < to.smallest_normal
        subnormal &= values != 0.0  # which are many, and 0 on every grid
        if subnormal.any():  # no grid is finer or coarser there than the format's own
            result = np.where(subnormal, 0.0 if self.contracts[0].flush_to_zero else to.to_nearest(values), result)
        return result

    def _to_base_2(self, values: np.ndarray, parts: tuple[Any, Any] | None, grid: np.ndarray) -> np.ndarray:
        """An argument times a constant and rounded, each part of a difference by itself; as it is on the true grid."""
        if parts is None:
            return np.where(grid == 1.0, values, self._rounded(values, grid))
        x, m = (self._rounded(self.lift(part, values.ndim - 1), grid) for part in parts)
        return np.where(grid == 1.0, values, self._rounded(x - m, grid))

    def _stored_if_eager(self, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
        """In the storage dtype for eager contracts, off the true grid; unchanged otherwise."""
        if self.storage is self.inside:
            return values
        return np.where(self._eager(grid), self._rounded(values, grid, self.storage), values)

    def _of_scaled_operand(
        self, ufunc: np.ufunc, product: tuple[Shadowed, Shadowed], number: Any, grid: np.ndarray
    ) -> np.ndarray | float:
        """By how much A·B is another where A is scaled by the number and stored before, for eager contracts, off the true grid."""
        if self.storage is self.inside or not number:
            return 0.0
        A, B = (np.where(np.isfinite(X.shadow), X.shadow, 0.0) for X in product)
        scaled = ufunc(A, number)
        lost = np.where(self._eager(grid), self._rounded(scaled, grid, self.storage.unlimited) - scaled, 0.0)
        return _times(lost * number if ufunc is np.divide else lost / number, B)

    def _eager(self, grid: np.ndarray) -> np.ndarray:
        """The trials of eager contracts off the true grid."""
        eager = self._trials_of([i for i, contract in enumerate(self.contracts) if contract.mode == "eager"])
        return eager.reshape(grid.shape) & (grid != 1.0)

    def _quotient(self, above: np.ndarray, below: np.ndarray, parts: tuple[Any, Any] | None, grid: np.ndarray) -> np.ndarray:
        """By way of the reciprocal, each part of a difference by itself; a plain division on the true grid."""
        reciprocal = self._rounded(1.0 / below, grid)
        if parts is None:
            return np.where(grid == 1.0, above / below, above * reciprocal)
        x, m = (self._rounded(self.lift(part, above.ndim - 1) * reciprocal, grid) for part in parts)
        return np.where(grid == 1.0, above / below, x - m)

    def _off_by(self, function: str, exact: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Relative errors up to κ units: a part that the trial's library has everywhere, and a part of each number's own."""
        kappa = self.contracts[0].kappa(function)
        if kappa == 0.0:
            return values
        common = self.rng.uniform(-1.0, 1.0, self._one_each(exact.ndim))
        common[self._doubled] *= 2.0
        own = self._noise(exact, 1.0, places=np.arange(exact.size).reshape(exact.shape))
        own += common
        own *= kappa * self.inside.simulated_u / 2
        own += 1.0
        own *= values
        return own

    def _noise(
        self, exact: np.ndarray, size: float, apart: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Numbers spread evenly over (−size, size) for each trial, over twice as much for doubled ones.

        Equal for elements whose exact value is the same in float32. In the trials that are set `apart` only those of one column
        are; with `places`, in a quarter of the trials only those at one place.
        """
        keys = self.rng.integers(0, 2**64, size=self._one_each(exact.ndim), dtype=np.uint64) | np.uint64(1)
        bits = exact.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits ^= np.uint64(0x9E3779B97F4A7C15)  # or a sum that cancels to exactly 0 would have no noise
        if places is not None:
            apart = keys < np.uint64(OWN_CODE * 2**64)
        alike = _mixed(bits)
        if apart is not None:
            own = np.arange(exact.shape[-1]) if places is None else places
            alike = np.where(apart, _mixed(bits ^ own.astype(np.uint64) << np.uint64(32)), alike)
        noise = (alike * keys).view(np.int64).astype(np.float64)
        noise *= size * 2.0**-63
        noise[self._doubled] *= 2.0
        return noise

    def _summed(
        self,
        sums: np.ndarray,
        exact: np.ndarray,
        squares: np.ndarray,
        partial: np.ndarray,
        drift: np.ndarray | float,
        terms: int,
        *,
        alike: bool = True,
    ) -> np.ndarray:
        mean_square = np.maximum(np.square(exact) / 3 + squares / 6, partial)
        equal_terms = np.square(exact) >= squares * (terms * (1 - 2.0**-10))
        steps = np.where(equal_terms, float(terms), np.sqrt(terms))
        size = np.maximum(steps * np.sqrt(mean_square), drift)
        grid = self._grid(exact.ndim)
        return self._rounded(sums + self._deviating(exact, size, None if alike else grid < APART), grid)

    def _deviating(self, exact: np.ndarray, size: np.ndarray, apart: np.ndarray | None = None) -> np.ndarray:
        """Errors of SPREAD units of `size`, spread evenly."""
        noise = self._noise(exact, SPREAD * np.sqrt(3.0) * self.inside.simulated_u, apart)
        noise *= np.where(np.isfinite(size), size, 0.0)
        return noise

    def _drift(self, terms: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """How far the sum is off when added forwards and backwards on the true grid, in SPREAD units."""
        if not terms.shape[-1]:
            return np.zeros_like(exact)
        own = terms.astype(np.float64 if self.inside.name == "float64" else np.float32)
        ends = [np.cumsum(order, axis=-1)[..., -1:].astype(np.float64) for order in (own, own[..., ::-1])]
        return np.maximum(*(np.abs(end - exact) for end in ends)) / (SPREAD * self.inside.u)

    def _operand(self, X: Shadowed) -> np.ndarray:
        if self._operands is None:
            return X.shadow
        return self._rounded(X.shadow, self._grid(X.ndim), self._operands)


def _few_at_a_time(shadow: np.ndarray) -> Iterator[slice]:
    """So many trials of a matrix at once as fit into the cache."""
    step = max(1, CACHED // max(shadow[0].size, 1)) if len(shadow) else 1
    return (slice(start, min(start + step, len(shadow))) for start in range(0, len(shadow), step))


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of each trial's two matrices; at once where the second is the same in all."""
    terms = a.shape[-1]
    return a @ b if len(b) > 1 or not terms else (a.reshape(-1, terms) @ b[0]).reshape(*a.shape[:-1], b.shape[-1])


def _mean_square_of_partial_sums(terms: np.ndarray) -> np.ndarray:
    """How large the sum of each row is on the way, squared and averaged over the way, as a column.

    Added up one after the other, or in so many sums side by side as a processor's registers hold, whichever is largest: terms whose
    signs alternate stay small in one sum, and do not in two.
    """
    *rows, count = terms.shape
    largest = np.zeros((*rows, 1))
    for lanes in LANES:
        if lanes == 1 or lanes < count:
            each = -(-count // lanes)
            side_by_side = np.zeros((*rows, each * lanes))
            side_by_side[..., :count] = terms
            on_the_way = side_by_side.reshape(*rows, each, lanes).cumsum(axis=-2)
            squares = np.square(on_the_way).sum(axis=(-2, -1))
            if lanes > 1:
                squares += np.square(on_the_way[..., -1, :].cumsum(axis=-1)[..., 1:]).sum(axis=-1)
            largest = np.maximum(largest, squares[..., None] / max(count, 1))
    return largest


def _mean_square_of_partial_products(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The same for each entry of a long product A B of two matrices, looked at BLOCKS times on the way."""
    total, mean_square = np.zeros((len(A), B.shape[-1])), np.zeros((len(A), B.shape[-1]))
    edges = np.linspace(0, A.shape[-1], min(BLOCKS, A.shape[-1]) + 1).astype(int)
    for start, stop in pairwise(edges):
        total += A[:, start:stop] @ B[start:stop]
        mean_square += np.square(total)
    return mean_square / (len(edges) - 1)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Other bits, the same for the same (two rounds of splitmix64)."""
    bits = bits * np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(32)
    return bits


def _is_power_of_two(operand: Any) -> bool:
    return isinstance(operand, (int, float, np.floating)) and abs(math.frexp(operand)[0]) == 0.5
