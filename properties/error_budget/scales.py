"""From the errors of trials to scales: how large a correct error is, in each component and in sums of many.

A single component sees a fault that is large somewhere; a sum over a row, a column, a head or the whole sees one that is spread
thin. The sums are the bias (of errors) and the gain (of errors along the result itself), and probes: errors along what a named
fault would do.

A standard deviation says nothing of a tail. Errors that go through a LayerNorm of nearly equal numbers have heavy ones: one
correct run in thousands errs by more than 8 σ, and by hundreds where a difference changes its sign. So where trials
are there in which every rounding errs twice as much, and the worst of them is beyond 8 σ, a correct error may be a
quarter more than that. Where errors grow in proportion, as nearly everywhere, it is not, and changes nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from properties.error_budget.monte_carlo import SPREAD
from properties.implementations.contract import Contract

FAIL = 8.0  # σ above which no implementation is correct
FURTHER = 1.25  # times the worst of doubled trials, a correct error may be where these fail
PRIOR = 4  # trials that the pooled variance of a row and a column counts for
SHARE_OF_OWN = 0.8  # less than √(16/(16 + PRIOR)): how much of a deviation is at least the component's own
LATTICE = 0.25  # a sum's variance is at least this share of what the last rounding alone gives its terms


@dataclass(frozen=True)
class Aggregate:
    """One kind of sum: Σ weight · error / scale over `axes`, which by rounding alone deviates by `deviation`."""

    kind: str
    axes: tuple[int, ...]  # counted from the last, −1
    weight: np.ndarray | float
    deviation: np.ndarray  # 0 where there is nothing to sum

    def score(self, z: np.ndarray) -> np.ndarray:
        """The sums of the errors z (each in units of its component's scale), of one result or of many, in their σ."""
        sums = np.abs((z * self.weight).sum(axis=self.axes, keepdims=True))
        return np.divide(sums, self.deviation, out=np.zeros_like(sums), where=self.deviation > 0)

    def worst_place(self, group: int, size: np.ndarray) -> tuple[Any, ...]:
        """Where in the sum of this number the largest of the sizes is."""
        index = np.unravel_index(group, self.deviation.shape)
        within = tuple(slice(None) if axis in self.axes else index[axis] for axis in range(-size.ndim, 0))
        summed = np.full(size.shape, -1.0)
        summed[within] = size[within]
        return np.unravel_index(int(summed.argmax()), size.shape)


def component_scale(
    blocks: Sequence[np.ndarray], exact: np.ndarray, contract: Contract, doubled: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The deviation of each component, the larger of all contracts', and its floor: the last rounding alone, or flushing to 0.

    `blocks` are the trials' errors under each contract, (trials, *shape), and `doubled` those of doubled trials. Sixteen squares
    say little about a component, so they are shrunk towards what its row and its column suggest.
    """
    storage = contract.storage
    smallest = max(storage.smallest / 2, np.nextafter(0.0, 1.0))  # half of float64's smallest is 0: nothing would divide by it
    smallest = storage.smallest_normal if contract.flush_to_zero else smallest
    floor = np.hypot(SPREAD * storage.u * np.abs(exact), smallest)
    variance = np.square(floor)
    for errors in blocks:
        own = np.square(errors).mean(axis=0)
        variance = np.maximum(variance, (len(errors) * own + PRIOR * _pooled(own)) / (len(errors) + PRIOR))
    scale = np.maximum(np.sqrt(variance), floor)  # the square of a tiny floor may have underflowed
    if contract.flush_to_zero:  # and so may that of what was flushed, in float64
        scale = np.maximum.reduce([scale, *(SHARE_OF_OWN * _root_mean_square(errors) for errors in blocks)])
    return _widened(scale, doubled), floor


def _root_mean_square(errors: np.ndarray) -> np.ndarray:
    """Of the trials, however small they are."""
    largest = np.abs(errors).max(axis=0)
    shares = np.divide(errors, largest, out=np.zeros_like(errors), where=largest > 0)
    return largest * np.sqrt(np.square(shares).mean(axis=0))


def _widened(scale: np.ndarray, doubled: Sequence[np.ndarray]) -> np.ndarray:
    """The scale, and where the worst of doubled trials is above the mark one by which it is below."""
    worst = np.maximum.reduce([np.zeros_like(scale), *(np.abs(errors).max(axis=0) for errors in doubled)])
    return np.where(worst > FAIL * scale, worst * (FURTHER / FAIL), scale)


def _pooled(variance: np.ndarray) -> np.ndarray:
    """What a row and a column together suggest: the product of their means over the mean of all."""
    if not variance.size:
        return variance
    rows = variance.mean(axis=-1, keepdims=True)
    columns = variance.mean(axis=tuple(range(variance.ndim - 1)), keepdims=True)
    overall = variance.mean()
    return rows * columns / overall if overall > 0 else np.zeros_like(variance)


def aggregates(
    blocks: Sequence[np.ndarray],
    exact: np.ndarray,
    scale: np.ndarray,
    floor: np.ndarray,
    probes: Mapping[str, np.ndarray],
    doubled: Sequence[np.ndarray] = (),
    without: Collection[str] = (),
) -> Iterator[Aggregate]:
    """All sums worth looking at for a result of this shape, `without` those over some of "whole", "row", "column", "head"."""
    judged, worst = ([errors / scale for errors in each] for each in (blocks, doubled))
    last = np.square(floor / scale)
    gain = _unit(np.where(np.isfinite(exact), exact, 0.0) / scale)
    for name, axes in _groups(exact.ndim).items():
        if name not in without and np.prod([exact.shape[axis] for axis in axes]) > 1:
            yield _aggregate(f"{name}, bias", axes, 1.0, judged, last, worst)
            yield _aggregate(f"{name}, gain", axes, gain, judged, last, worst)
    for name, wrong in probes.items():
        weight = _unit(np.where(np.isfinite(wrong), wrong - exact, 0.0) / scale)
        yield _aggregate(f"probe: {name}", tuple(range(-exact.ndim, 0)), weight, judged, last, worst)


def _groups(ndim: int) -> dict[str, tuple[int, ...]]:
    """Which axes are summed over. Of four axes (b, h, n, d) the second counts heads; columns are each head's own."""
    everything = tuple(range(-ndim, 0))
    if ndim < 2:
        return {"whole": everything}
    groups = {"whole": everything, "row": (-1,), "column": everything[:-1]}
    return groups if ndim != 4 else {**groups, "column": (-4, -2), "head": (-4, -2, -1)}


def _unit(weight: np.ndarray) -> np.ndarray:
    """The weights over their root mean square; all 0 if they are."""
    size = np.sqrt(np.square(weight).mean()) if weight.size else 0.0
    return weight / size if size > 0 else np.zeros_like(weight)


def _aggregate(
    kind: str,
    axes: tuple[int, ...],
    weight: np.ndarray | float,
    judged: Sequence[np.ndarray],
    last: np.ndarray,
    doubled: Sequence[np.ndarray],
) -> Aggregate:
    def summed(z: np.ndarray) -> np.ndarray:
        return (z * weight).sum(axis=axes, keepdims=True)

    squares = np.square(np.broadcast_to(weight, last.shape))
    size = squares.sum(axis=axes, keepdims=True)
    per_size = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    variance = LATTICE * (squares * last).sum(axis=axes, keepdims=True) * per_size
    for z in judged:
        own = np.square(summed(z)).mean(axis=0) * per_size
        variance = np.maximum(variance, (len(z) * own + PRIOR * own.mean()) / (len(z) + PRIOR))
    return Aggregate(kind, axes, weight, _widened(np.sqrt(variance * size), [summed(z) for z in doubled]))
