"""Inputs that show something: for the steps without weights, embedding to mask.

Scores are drawn, not elements: a query picks a profile of scores over the keys (one-hot, tie, near-tie, wide, sink …), and Q and
K are backed out of it; V carries labels, so that an output names the key it came from. All numbers have at most eight
significant bits and lie within float16, so that every dtype is asked the same question. Only a few integers are drawn for a
case, and the smallest read as "one token, all scores equal, no mask".
"""

import numpy as np
from hypothesis import strategies as st

from properties.implementations.domain import fitting, fitting_masks, takes_masks
from properties.implementations.impl import Impl
from properties.inputs.parameters import SEEDS, Call, dyadic
from properties.steps import Sizes

BLOCKS = tuple(sorted({block + off for block in (8, 16, 32, 64, 128) for off in (-1, 0, 1)}))


def full_mantissa(impl: Impl, X: np.ndarray, seed: int) -> np.ndarray:
    """`X` a little off, so that its numbers have all the digits of the dtype: a product that cuts them short shows."""
    return impl.representable(X * (1 + np.random.default_rng(seed).uniform(0, 2.0**-7, X.shape)))


def farthest(dtype: str) -> float:
    """A number as large as hidden junk may be without overflowing any correct score it is in."""
    return 2.0**10 if dtype == "float16" else 2.0**60


# Sizes ----------------------------------------------------------------------------------------------------------------


DISTINCT = (Sizes(1, 2, 3, 5, 4, 7), Sizes(2, 1, 5, 3, 7, 4), Sizes(3, 2, 1, 4, 5, 6), Sizes(2, 3, 4, 1, 6, 5))
COINCIDENT = (Sizes(2, 2, 2, 2, 2, 2), Sizes(3, 3, 3, 3, 3, 3), Sizes(2, 2, 4, 4, 4, 4), Sizes(1, 3, 3, 3, 1, 1))


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Small axes mostly; also all of them different, some on purpose the same, a length at the edge of a block.

    Within a domain, the number of features is one that can be laid into it (`properties.implementations.laid`).
    """
    drawn = draw(_sizes())
    return Sizes(*map(fitting, Sizes._fields, drawn))


@st.composite
def _sizes(draw: st.DrawFn) -> Sizes:
    kind = draw(st.sampled_from(("small", "small", "distinct", "coincident", "keys at an edge", "queries at an edge")))
    side = st.integers(1, 4)
    match kind:
        case "distinct":
            return draw(st.sampled_from(DISTINCT))
        case "coincident":
            return draw(st.sampled_from(COINCIDENT))
        case "keys at an edge":
            return Sizes(1, draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from(BLOCKS)), draw(side), 2)
        case "queries at an edge":
            return Sizes(1, 1, draw(st.sampled_from(BLOCKS[:9])), draw(side), draw(side), 2)
        case _:
            return Sizes(draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(side), draw(side), draw(side), draw(side))


# Masks ----------------------------------------------------------------------------------------------------------------


def mask_shapes(b: int, h: int, n: int, m: int) -> list[tuple[int, ...]]:
    """Every way to write a mask that broadcasts to (b, h, n, m) and says something about keys."""
    whole = [(x, y, z, m) for x in (1, b) for y in (1, h) for z in (1, n)]
    return fitting_masks(list(dict.fromkeys([(n, m), *whole])), {"b": b, "h": h, "n": n, "m": m})


@st.composite
def ragged_masks(draw: st.DrawFn, b: int, h: int, n: int, m: int, *, fully_masked: bool = False) -> np.ndarray:
    """A mask of any broadcastable shape, other for each row and head that it tells apart; `fully_masked` rows are."""
    shape = draw(st.sampled_from(mask_shapes(b, h, n, m)))
    kind = draw(st.sampled_from(("lengths", "causal", "scattered", "window", "one")))
    rng = np.random.default_rng(draw(SEEDS))
    rows, keys = np.arange(shape[-2])[:, None], np.arange(m)
    start = rng.integers(0, m, (*shape[:-2], 1, 1))  # each batch row and head has its own
    mask = {
        "lengths": keys <= start,
        "causal": keys <= rows + start,
        "window": abs(keys - rows - start) <= 1,
        "scattered": rng.random(shape) < 0.5,
        "one": np.zeros(shape, dtype=bool),
    }[kind] & np.ones(shape, dtype=bool)
    np.put_along_axis(mask, rng.integers(0, m, (*shape[:-1], 1)), True, axis=-1)
    if fully_masked:
        mask[rng.random(shape[:-1]) < 0.5] = False
    return mask


def full(mask: np.ndarray | None, b: int, h: int, n: int, m: int) -> np.ndarray:
    """The mask written out, one truth value for every query and key of every head."""
    return np.broadcast_to(True if mask is None else mask, (b, h, n, m))


# Attention ------------------------------------------------------------------------------------------------------------

PATTERNS = ("uniform", "plain", "near tie", "tie", "one-hot", "sink", "wide", "sorted", "low")


def profile(pattern: str, m: int, rng: np.random.Generator) -> np.ndarray:
    """The scores of m keys, up to the factor of the query that picks this profile."""
    first, second = rng.integers(0, m, 2)
    scores = np.full(m, -16.0)
    match pattern:
        case "uniform":
            scores[:] = 0.0
        case "plain":
            scores = dyadic(int(rng.integers(2, 2**16)), (m,), 2.0)
        case "near tie":
            scores[second], scores[first] = 1.0 + 2.0**-6, 1.0
        case "tie":
            scores[second] = scores[first] = 1.0
        case "one-hot":
            scores[first] = 8.0
        case "sink":
            scores = dyadic(int(rng.integers(2, 2**16)), (m,), 1.0)
            scores[0] = 4.0
        case "wide":
            scores = rng.integers(-96, 33, m) / 4
        case "low":
            scores = -128.0 - rng.integers(0, 9, m)
        case "abysmal":
            scores = np.array((0.0, -31.0 * 2**9, -31.5 * 2**9))[rng.integers(0, 3, m)]
        case _:
            scores = -np.arange(m) % 128 / 16
    return scores


def labels(*shape: int) -> np.ndarray:
    """A whole number of at most 125 for every place, all different where there are no more than 251 places."""
    return (np.arange(1, np.prod(shape, dtype=int) + 1) * 2 % 251 - 125.0).reshape(shape)


@st.composite
def values(draw: st.DrawFn, *shape: int) -> np.ndarray:
    """What keys have to say: labels, numbers of both signs, a tiny spread on a large offset, tiny and subnormal numbers."""
    some = dyadic(draw(st.integers(2, 2**16)), shape)
    return {
        "labels": labels(*shape),
        "plain": some,
        "offset": 128 + np.floor(16 * some),
        "tiny": some * 2.0**-8,
        "subnormal": some * 2.0**-18,
    }[draw(st.sampled_from(("labels", "plain", "offset", "tiny", "subnormal")))]


@st.composite
def scored(draw: st.DrawFn, size: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Q and K: each feature of the keys is a profile of scores, and each query has one feature, or a little of all."""
    b, h, n, m, d_k, _ = size
    rng = np.random.default_rng(draw(SEEDS))
    pattern = draw(st.sampled_from((*PATTERNS, "each another", "abysmal")))
    profiles = [[profile(_one(pattern, rng), m, rng) for _ in range(d_k)] for _ in range(b * h)]
    K = np.array(profiles).reshape(b, h, d_k, m).swapaxes(-1, -2).copy()
    root = 2.0 ** round(np.log2(d_k) / 2)  # of d_k, as near as a power of two comes: it is divided away again
    if pattern != "abysmal" and draw(st.booleans()):
        return dyadic(int(rng.integers(2, 2**16)), (b, h, n, d_k), 1.0), K
    picked = rng.integers(0, d_k, (b, h, n, 1)) == np.arange(d_k)
    return picked * root * draw(st.sampled_from((1.0, 0.5, 2.0))), K


def _one(pattern: str, rng: np.random.Generator) -> str:
    return PATTERNS[rng.integers(len(PATTERNS))] if pattern == "each another" else pattern


@st.composite
def attention_calls(draw: st.DrawFn, *, masked: bool | None = None, fully_masked: bool = False) -> Call:
    """Q, K, V and a mask: `masked` always, never or (None) sometimes; `fully_masked` rows attend to nothing."""
    size = draw(sizes())
    b, h, n, m, _, d_v = size
    Q, K = draw(scored(size))
    has_mask = (draw(st.booleans()) and takes_masks()) if masked is None else masked
    mask = draw(ragged_masks(b, h, n, m, fully_masked=fully_masked)) if has_mask else None
    return Call((Q, K, draw(values(b, h, m, d_v)), mask), {})


@st.composite
def exact_attention_calls(draw: st.DrawFn) -> Call:
    """Attention without rounding: 1, 2, 4 or 8 keys share the top score; the others are hidden, or so low that exp gives 0.

    Each query and key share a single feature, values are small and whole: every sum is exact in every dtype and order.
    """
    b, h, n, m, d_k, d_v = draw(sizes())
    rng = np.random.default_rng(draw(SEEDS))
    low = draw(st.sampled_from((-(2.0**12), 0.0))) if takes_masks() else -(2.0**12)
    tied = 2 ** draw(st.integers(0, min(3, m.bit_length() - 1)))
    chosen = rng.permuted(np.broadcast_to(np.arange(m) < tied, (b, h, m)), axis=-1)
    feature = rng.integers(0, d_k, (b, h, 1, 1)) == np.arange(d_k)
    K = feature * np.where(chosen, 0.0, low)[..., None]
    Q = np.where(feature, 2.0 ** d_k.bit_length(), rng.integers(-2, 3, (b, h, n, d_k)))
    V = rng.integers(-8, 9, (b, h, m, d_v)).astype(np.float64)
    return Call((Q, K, V, None if low else np.repeat(chosen[:, :, None], n, axis=2)), {})


# Softmax --------------------------------------------------------------------------------------------------------------


@st.composite
def score_shapes(draw: st.DrawFn) -> tuple[int, ...]:
    """(n, m) with up to two leading axes; m at the edge of a block at times."""
    m = draw(st.integers(1, 6) | st.sampled_from(BLOCKS))
    leading = draw(st.lists(st.integers(1, 3), max_size=2)) if m < 9 else []
    return (*leading, draw(st.integers(1, 4)), m)


@st.composite
def scores(draw: st.DrawFn, *, hidden: bool = True) -> np.ndarray:
    """Rows of scores: ties, near-ties, a wide range, a small spread on a large offset, huge, subnormal; some are −∞ if `hidden`."""
    shape = draw(score_shapes())
    rng = np.random.default_rng(draw(SEEDS))
    kind = draw(st.sampled_from(("tie", "plain", "near tie", "wide", "offset", "huge", "subnormal", "sorted")))
    rows = {
        "tie": np.zeros(shape),
        "plain": rng.integers(-64, 65, shape) / 16,
        "near tie": 1 + rng.integers(0, 2, shape) * 2.0**-7,
        "wide": rng.integers(-120, 121, shape) * 1.0,
        "offset": draw(st.sampled_from((1.0, -1.0))) * (192 + rng.integers(0, 64, shape)) * 2.0 ** draw(st.integers(-6, 8)),
        "huge": rng.integers(-255, 256, shape) * 2.0**8,
        "subnormal": rng.integers(-8, 9, shape) * 2.0**-24,
        "sorted": np.broadcast_to(-np.arange(shape[-1]) % 128 / 8, shape).copy(),
    }[kind]
    if hidden and draw(st.booleans()):
        visible = rng.random(shape) < 0.5
        np.put_along_axis(visible, rng.integers(0, shape[-1], (*shape[:-1], 1)), True, axis=-1)
        rows = np.where(visible, rows, -np.inf)
    return rows


# Embedding ------------------------------------------------------------------------------------------------------------


@st.composite
def embeddings(draw: st.DrawFn, *, widths: tuple[int, ...] = (1, 2, 3, 4, 5, 8, 16, 33), repeat: bool = False) -> Call:
    """Sequences and a table of meanings, no two of them the same; where asked for, the last token `repeat`s the first."""
    b, n, d_model = draw(st.integers(1, 3)), draw(st.integers(1, 6)) + repeat, draw(st.sampled_from(widths))
    vocab = draw(st.integers(1, 7))
    table = dyadic(draw(st.integers(2, 2**16)), (vocab, d_model))
    table[:, 0] = (np.arange(vocab) + 1) / 8
    tokens = np.random.default_rng(draw(SEEDS)).integers(0, vocab, (b, n))
    if repeat:
        tokens[:, -1] = tokens[:, 0]
    return Call((tokens,), {"table": table})
