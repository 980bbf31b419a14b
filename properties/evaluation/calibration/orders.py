"""Orders in which correct machines add: each takes (..., n) numbers of one dtype and gives their sums (..., 1) in that dtype."""

from collections.abc import Callable

import numpy as np

Order = Callable[[np.ndarray], np.ndarray]


def pairwise(x: np.ndarray) -> np.ndarray:
    """NumPy's own: eight running sums, then halves of halves."""
    return np.ascontiguousarray(x).sum(axis=-1, keepdims=True)


def forward(x: np.ndarray) -> np.ndarray:
    """One after another."""
    return np.cumsum(x, axis=-1)[..., -1:] if x.shape[-1] else x.sum(axis=-1, keepdims=True)


def backward(x: np.ndarray) -> np.ndarray:
    """The last one first."""
    return forward(x[..., ::-1])


def tree(x: np.ndarray) -> np.ndarray:
    """Neighbours, then neighbouring pairs, and so on."""
    while x.shape[-1] > 1:
        if x.shape[-1] % 2:
            x = np.concatenate([x, np.zeros_like(x[..., :1])], axis=-1)
        x = x[..., ::2] + x[..., 1::2]
    return x if x.shape[-1] else x.sum(axis=-1, keepdims=True)


def halves(x: np.ndarray) -> np.ndarray:
    """The first half and the second, each in halves again."""
    if x.shape[-1] < 2:
        return x.sum(axis=-1, keepdims=True)
    middle = x.shape[-1] // 2
    return halves(x[..., :middle]) + halves(x[..., middle:])


def compensated(x: np.ndarray) -> np.ndarray:
    """One after another, what each addition lost carried along (Kahan)."""
    total, lost = np.zeros_like(x[..., :1]), np.zeros_like(x[..., :1])
    for i in range(x.shape[-1]):
        more = x[..., i : i + 1] - lost
        larger = total + more
        lost = np.where(np.isfinite(larger), (larger - total) - more, x.dtype.type(0))
        total = larger
    return total


def blocked(size: int) -> Order:
    """Sums of blocks, added one after another."""

    def order(x: np.ndarray) -> np.ndarray:
        sums = [forward(x[..., start : start + size]) for start in range(0, x.shape[-1], size)]
        return forward(np.concatenate(sums, axis=-1)) if sums else x.sum(axis=-1, keepdims=True)

    return order


def lanes(count: int) -> Order:
    """Running sums side by side, as vector registers keep them, joined as a tree."""

    def order(x: np.ndarray) -> np.ndarray:
        sums = [forward(x[..., lane::count]) for lane in range(min(count, x.shape[-1]))]
        return tree(np.concatenate(sums, axis=-1)) if sums else x.sum(axis=-1, keepdims=True)

    return order


def smallest_first(x: np.ndarray) -> np.ndarray:
    """Sorted by size."""
    return forward(np.take_along_axis(x, np.argsort(np.abs(x), axis=-1), axis=-1))


def shuffled(x: np.ndarray) -> np.ndarray:
    """In an arbitrary order, the same each time."""
    return forward(x[..., np.random.default_rng(x.shape[-1]).permutation(x.shape[-1])])


def wide(x: np.ndarray) -> np.ndarray:
    """In float64, rounded once."""
    return x.astype(np.float64).sum(axis=-1, keepdims=True).astype(x.dtype)
