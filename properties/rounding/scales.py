"""From the errors of trials to scales: how large an honest error is, in each component and in sums of many.

A single component sees a fault that is large somewhere; a sum over a row, a column, a head or the whole sees one that is spread
thin. The sums are the bias (of errors) and the gain (of errors along the result itself), and probes: errors along what a named
fault would do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from properties.contracts import Contract
from properties.rounding.trials import SPREAD

PRIOR = 4  # trials that the pooled variance of a row and a column counts for
SHARE_OF_OWN = 0.8  # less than √(16/(16 + PRIOR)): how much of a deviation is at least the component's own
LATTICE = 0.25  # a sum's variance is at least this share of what the last rounding alone gives its terms


@dataclass(frozen=True)
class Aggregate:
    """One kind of sum: Σ weight · error / scale over `axes`, which honestly deviates by `deviation`."""

    kind: str
    axes: tuple[int, ...]
    weight: np.ndarray | float
    deviation: np.ndarray  # 0 where there is nothing to sum

    def score(self, z: np.ndarray) -> np.ndarray:
        """The sums of the errors z (each in units of its component's scale), in their deviations."""
        sums = np.abs((z * self.weight).sum(axis=self.axes, keepdims=True))
        return np.divide(sums, self.deviation, out=np.zeros_like(sums), where=self.deviation > 0)


def component_scale(blocks: Sequence[np.ndarray], exact: np.ndarray, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """The deviation of each component, the larger of all contracts', and its floor: the last rounding alone, or flushing to 0.

    `blocks` are the trials' errors under each contract, (trials, *shape). Sixteen squares say little about a tail, so they are
    shrunk towards what the component's row and column suggest.
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
    return scale, floor


def _root_mean_square(errors: np.ndarray) -> np.ndarray:
    """Of the trials, however small they are."""
    largest = np.abs(errors).max(axis=0)
    shares = np.divide(errors, largest, out=np.zeros_like(errors), where=largest > 0)
    return largest * np.sqrt(np.square(shares).mean(axis=0))


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
) -> Iterator[Aggregate]:
    """All sums worth looking at for a result of this shape."""
    judged = [errors / scale for errors in blocks]
    last = np.square(floor / scale)
    gain = _unit(np.where(np.isfinite(exact), exact, 0.0) / scale)
    for name, axes in _groups(exact.ndim).items():
        if np.prod([exact.shape[axis] for axis in axes]) > 1:
            yield _aggregate(f"{name}, bias", axes, 1.0, judged, last)
            yield _aggregate(f"{name}, gain", axes, gain, judged, last)
    for name, wrong in probes.items():
        weight = _unit(np.where(np.isfinite(wrong), wrong - exact, 0.0) / scale)
        yield _aggregate(f"probe: {name}", tuple(range(exact.ndim)), weight, judged, last)


def _groups(ndim: int) -> dict[str, tuple[int, ...]]:
    """Which axes are summed over. Of four axes (b, h, n, d) the second counts heads; columns are each head's own."""
    everything = tuple(range(ndim))
    if ndim < 2:
        return {"whole": everything}
    groups = {"whole": everything, "row": (ndim - 1,), "column": everything[:-1]}
    return groups if ndim != 4 else {**groups, "column": (0, 2), "head": (0, 2, 3)}


def _unit(weight: np.ndarray) -> np.ndarray:
    """The weights over their root mean square; all 0 if they are."""
    size = np.sqrt(np.square(weight).mean()) if weight.size else 0.0
    return weight / size if size > 0 else np.zeros_like(weight)


def _aggregate(
    kind: str, axes: tuple[int, ...], weight: np.ndarray | float, judged: Sequence[np.ndarray], last: np.ndarray
) -> Aggregate:
    squares = np.square(np.broadcast_to(weight, last.shape))
    size = squares.sum(axis=axes, keepdims=True)
    per_size = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    variance = LATTICE * (squares * last).sum(axis=axes, keepdims=True) * per_size
    for z in judged:
        sums = (z * weight).sum(axis=tuple(axis + 1 for axis in axes), keepdims=True)
        own = np.square(sums).mean(axis=0) * per_size
        variance = np.maximum(variance, (len(z) * own + PRIOR * own.mean()) / (len(z) + PRIOR))
    return Aggregate(kind, axes, weight, np.sqrt(variance * size))
