"""Where a smaller question lies in a larger one, and what the larger one's answer says of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

EDGES = (0, -1, 127, 128, 63, 64, 31, 32, 255, 256, 15, 16, 7, 8)  # places beside the edges of blocks
ROOM = 2**23  # numbers in the scores and rows of a larger question
Places = np.ndarray  # of tokens or features, in a larger shape


class Part(NamedTuple):
    """Where in a larger array the smaller one's numbers are, along each axis, and what they are to be multiplied by."""

    places: tuple[Places, ...]
    factor: float = 1.0  # a power of two

    def taken(self, answer: np.ndarray) -> np.ndarray:
        """What the larger array says of the smaller one."""
        return answer[np.ix_(*self.places)] * self.factor if self.factor != 1 else answer[np.ix_(*self.places)]

    def spread(self, answer: np.ndarray, shape: Sequence[int], rest: float) -> np.ndarray:
        """The smaller array at its places in the larger one, `rest` everywhere else."""
        whole = np.full(shape, rest)
        whole[np.ix_(*self.places)] = answer / self.factor
        return whole


class Laid(NamedTuple):
    """The arguments of the larger call, and where in each of its results the smaller one's is; of a call as it is, nothing."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parts: tuple[Part, ...] = ()

    def taken(self, answer: Any) -> Any:
        """What the answer says of the smaller question: an array, or several by name, as the answer is."""
        if not self.parts:
            return answer
        if isinstance(answer, dict):
            return {name: part.taken(array) for (name, array), part in zip(answer.items(), self.parts, strict=True)}
        (part,) = self.parts
        return part.taken(answer)


def places_of(kind: int, count: int, size: int, rng: np.random.Generator) -> Places:
    """Where `count` tokens lie among `size`, in order."""
    match kind % 4:
        case 0:
            return np.arange(count)
        case 1:
            return np.arange(size - count, size)
        case 2:
            return np.sort(rng.choice(size, count, replace=False))
        case _:
            edges = list(dict.fromkeys(edge % size for edge in EDGES if edge < size))
            others = [place for place in range(size) if place not in edges]
            return np.sort(np.array([*edges, *others])[:count])
