"""In which order P·V adds up: read off which terms a large number swallows (FPRev, https://arxiv.org/abs/2411.00442).

All weights are equal. One value is M, one −M, the others are 1, and M is so large that it swallows them all: what is left are
those that are added after M and −M have met. So n less that is the size of the smallest part of the sum that holds both, and the
sizes for all pairs are the tree.
"""

from itertools import combinations

import numpy as np

from properties.card.arithmetic import D, Width
from properties.implementations.impl import Impl

KEYS = 32
QUERIES = 8  # with one alone a library may call another routine
FORGOTTEN = "exact: no term is lost"
COLUMNS_DIFFER = "not the same in all columns"


def sizes(impl: Impl, width: Width) -> np.ndarray:
    """How many keys the smallest part of the sum has that holds two of them: for each two, in each column (keys, keys, columns)."""
    unit = 2.0**-15 if impl.dtype == "float16" else 1.0
    large = unit * 2.0 ** min(width.bits + 6, 30 if impl.dtype == "float16" else 100)  # half a unit of it is over all ones
    pairs = list(combinations(range(KEYS), 2))
    V = np.full((1, len(pairs), KEYS, D), unit)  # a head for each two, so that each is added up by the same column
    for head, (i, j) in zip(V[0], pairs, strict=True):
        head[i], head[j] = large, -large
    Q, K = np.zeros((1, len(pairs), QUERIES, D)), np.zeros((1, len(pairs), KEYS, D))
    left = np.asarray(impl.attempt("attention", Q, K, V))[0, :, 0] / (unit / KEYS)
    size = np.ones((KEYS, KEYS, D))
    for (i, j), count in zip(pairs, left, strict=True):
        size[i, j] = size[j, i] = KEYS - count
    return size


def order(size: np.ndarray) -> str:
    """What the first column's tree is called, and whether it is every column's."""
    name = _name(size[..., 0])
    return name if (size == size[..., :1]).all() else f"{name}; {COLUMNS_DIFFER}"


def _name(size: np.ndarray) -> str:
    """What a tree of such sizes is called; "other" for one that has no name here."""
    if not np.isfinite(size).all() or (size != np.round(size)).any():
        return "other"
    place = np.arange(KEYS)
    later, earlier = np.maximum.outer(place, place), np.minimum.outer(place, place)
    apart = ~np.eye(KEYS, dtype=bool)
    pairwise = np.array([[2 ** int(i ^ j).bit_length() for j in place] for i in place])
    whole = {
        FORGOTTEN: np.full_like(size, 2),
        f"all {KEYS} at once": np.full_like(size, KEYS),
        "sequential": later + 1,
        "sequential, from the last": KEYS - earlier,
        "pairwise": pairwise,
    }
    for name, tree in whole.items():
        if (size == tree)[apart].all():
            return name
    for named in (_lanes, _groups, _blocks):
        for width in range(KEYS // 2, 1, -1):
            if named(size, width, place, apart):
                return NAMES[named].format(width)
    return "other"


def _lanes(size: np.ndarray, width: int, place: np.ndarray, apart: np.ndarray) -> bool:
    """Every w-th key is added to the one before it."""
    lane = np.equal.outer(place % width, place % width) & apart
    return bool((size == np.maximum.outer(place, place) // width + 1)[lane].all())


def _groups(size: np.ndarray, width: int, place: np.ndarray, apart: np.ndarray) -> bool:
    """Each group is added to all before it; of two groups it cannot be said which is added to which."""
    other = ~np.equal.outer(place // width, place // width) & apart
    return 3 * width <= KEYS and bool((size == (np.maximum.outer(place, place) // width + 1) * width)[other].all())


def _blocks(size: np.ndarray, width: int, place: np.ndarray, apart: np.ndarray) -> bool:
    """Neighbours are added one after the other, and the blocks are summed somehow."""
    block = np.equal.outer(place // width, place // width)
    inside = (size == np.maximum.outer(place, place) % width + 1)[block & apart].all()
    return bool(inside and (size[~block] > width).all())


NAMES = {_lanes: "{} lanes", _groups: "groups of {}, one after the other", _blocks: "blocks of {}"}
