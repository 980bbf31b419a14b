"""Which changes of a call move no bit of an answer: asked with numbers drawn from one seed, answered by the bits.

A row of attention depends on its query, the keys and the values alone. Whether the same row has the same bits in another batch, at
another place of it, beside other heads, in another chunk of queries, or when asked again, is a matter of how it is computed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from properties.implementations.impl import Impl

N, M, D = 16, 48, 16  # queries, keys and features of what is asked
SIZES = (2, 3, 8, 16)
CHUNKS = (1, 2, 8)


@dataclass(frozen=True)
class Invariance:
    """What is changed, and whether no bit should move by it.

    `moved` yields each size with the answer, and with the same rows of the changed call.
    """

    name: str
    what: str
    moved: Callable[[Impl], Iterator[tuple[int, np.ndarray, np.ndarray]]]
    expected: bool = True


def first_counterexample(impl: Impl, invariance: Invariance) -> int | None:
    """The first size at which a bit is another; None for none."""
    return next((size for size, one, other in invariance.moved(impl) if not np.array_equal(one, other, equal_nan=True)), None)


def _drawn(impl: Impl, b: int, h: int, m: int = M) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, K and V of a batch, always the same numbers for the same sizes."""
    rng = np.random.default_rng(20260611)
    shapes = ((b, h, N, D), (b, h, m, D), (b, h, m, D))
    return tuple(impl.representable(rng.standard_normal(shape)) for shape in shapes)  # type: ignore[return-value]


def _asked(impl: Impl, *args: np.ndarray) -> np.ndarray:
    return np.asarray(impl.attempt("attention", *args))


def _again(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    args = _drawn(impl, 2, 2)
    first = _asked(impl, *args)
    for times in (2, 3, 4):
        yield times, first, _asked(impl, *args)


def _in_a_batch(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for b in SIZES:
        args = _drawn(impl, b, 2)
        yield b, _asked(impl, *(each[:1] for each in args)), _asked(impl, *args)[:1]


def _at_a_place(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    b = SIZES[-1]
    args = _drawn(impl, b, 2)
    first = _asked(impl, *args)
    for place in range(1, b):
        moved = _asked(impl, *(np.roll(each, place, axis=0) for each in args)) if place in (1, 2, 5, b - 1) else None
        if moved is not None:
            yield place, first[0], moved[place]


def _beside_heads(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for h in SIZES:
        args = _drawn(impl, 1, h)
        yield h, _asked(impl, *(each[:, :1] for each in args)), _asked(impl, *args)[:, :1]


def _in_chunks(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    Q, K, V = _drawn(impl, 1, 2)
    whole = _asked(impl, Q, K, V)
    for size in CHUNKS:
        parts = [_asked(impl, Q[..., i : i + size, :], K, V) for i in range(0, N, size)]
        yield size, whole, np.concatenate(parts, axis=-2)


def _with_padding(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for more in (1, 16, 80):
        Q, K, V = _drawn(impl, 1, 2, M + more)
        attend = np.arange(M + more)[None] < M
        yield more, _asked(impl, Q, K[..., :M, :], V[..., :M, :]), _asked(impl, Q, K, V, attend)


def _split(impl: Impl) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The keys in two halves, each weighted by its share of the sum, which the values' indicator tells."""
    Q, K, V = _drawn(impl, 1, 2)
    first = np.broadcast_to((np.arange(M) < M // 2)[:, None], V.shape).astype(np.float64)
    share = _asked(impl, Q, K, first)
    halves = [_asked(impl, Q, K[..., part, :], V[..., part, :]) for part in (slice(None, M // 2), slice(M // 2, None))]
    yield 2, _asked(impl, Q, K, V), impl.representable(share * halves[0] + (1 - share) * halves[1])


INVARIANCES: tuple[Invariance, ...] = (
    Invariance("repetition", "asked again", _again),
    Invariance("batch_size", "the batch is larger", _in_a_batch),
    Invariance("batch_place", "it stands elsewhere in the batch", _at_a_place),
    Invariance("heads", "there are more heads", _beside_heads),
    Invariance("query_chunks", "queries come in chunks", _in_chunks),
    Invariance("padding", "masked keys are appended", _with_padding),
    Invariance("key_split", "keys are split and the parts merged", _split, expected=False),
)
