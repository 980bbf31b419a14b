"""Inputs for the options of attention and of a layer: calls in which they meet.

Those of attention meet every two of them in each pair of what they may be; a layer's calls are under any mask.
Scores are drawn as for plain attention: a query picks a profile over the keys, and values are labels. All numbers have at most
eight significant bits. What is drawn is a row of a covering array and a seed; the smallest reads as "no option".
"""

from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.implementations.conventions import Conventions, seen_by_heads
from properties.implementations.domain import as_many_keys_as_are_taken, fitting, takes_masks
from properties.implementations.impl import Impl
from properties.inputs.attention import BLOCKS, labels, mask_shapes, profile
from properties.inputs.pairwise import pairwise
from properties.inputs.parameters import SEEDS, Call, dyadic, features, multi_head_weights, sizes
from properties.steps import COMPANIONS, OPTIONS
from properties.verdicts import NotOffered

EVERY = frozenset(OPTIONS["attention"])
LEVELS: dict[str, tuple[Any, ...]] = dict.fromkeys(OPTIONS["attention"], (False, True)) | {"window": (False, "left", "both")}
"""What each option may be in a covering array: off, or on with a value that the seed decides."""
AROUND: dict[str, tuple[Any, ...]] = {"mask": (False, True), "lengths": ("n = m", "n < m", "n > m")}
"""What every option must compose with besides the others."""

PROFILES = ("plain", "uniform", "near tie", "tie", "one-hot", "sink", "sorted")
HEADS = ((1, 1), (2, 2), (3, 3)), ((2, 1), (4, 2), (6, 2), (3, 1), (6, 3))  # (h, g): as many key heads, or fewer
SCALES = (0.5, 0.375, 2.0, 1.0)
CAPS = (1.0, 4.0, 0.75, 16.0)
SHARES = (0.5, 0.25, 0.75, 0.125)  # of the weights that are dropped; what is kept is multiplied by 2, 4/3, 4 or 8/7
EDGES = tuple(size for size in BLOCKS if size < 40)

Row = dict[str, Any]


@cache
def covering(offered: frozenset[str] = EVERY) -> tuple[Row, ...]:
    """Rows in which every two of the offered options, the mask and the lengths occur in every pair of what they may be."""
    return tuple(pairwise({name: values for name, values in (LEVELS | AROUND).items() if name in {*offered, *AROUND}}))


def composed(row: Row, seed: int) -> Call:
    """The call of `attention` that has the options of this row, all else being decided by the seed.

    Within a domain, the number of features is one that can be laid into it, and a mask is handed over where one is taken.
    """
    rng = np.random.default_rng(seed)
    h, g = HEADS[bool(row.get("grouped_heads"))][rng.integers(3)]
    b, d_k, d_v = (fitting(axis, int(size)) for axis, size in zip(("b", "d_k", "d_v"), rng.integers(1, (3, 5, 4)), strict=True))
    n, m = _lengths(row["lengths"], rng)
    masked = row["mask"] and takes_masks()
    if row.get("softcap") and not masked:
        n, m = as_many_keys_as_are_taken(n, m, seed)
    keys = [profile(PROFILES[rng.integers(len(PROFILES))], m, rng) for _ in range(b * g * d_k)]
    K = np.array(keys).reshape(b, g, d_k, m).swapaxes(-1, -2).copy()
    picked = rng.integers(0, d_k, (b, h, n, 1)) == np.arange(d_k)
    some = dyadic(int(rng.integers(2, 2**16)), (b, h, n, d_k), 1.0)
    Q = some if rng.random() < 0.5 else picked * rng.choice((0.5, 1.0, 2.0))
    mask = _mask((b, h, n, m), rng) if masked else None
    made = {name: value for name in OPTIONS["attention"] if (value := _value(name, row.get(name), (b, h, n, m), rng)) is not None}
    if "dropout_mask" in made:
        made["dropout_p"] = float(rng.choice(SHARES))
    return Call((Q, K, labels(b, g, m, d_v), mask), made)


def _lengths(kind: str, rng: np.random.Generator) -> tuple[int, int]:
    """(n, m), short mostly; one call in eight has a length at the edge of a block."""
    short, long = sorted(int(size) for size in rng.integers((1, 4), (4, 8)))
    long = int(rng.choice(EDGES)) if rng.random() < 1 / 8 else long
    return {"n = m": (long, long), "n < m": (short, long), "n > m": (long, short)}[kind]


def _mask(shape: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    shapes = mask_shapes(*shape)
    return rng.random(shapes[rng.integers(len(shapes))]) < 0.7


def _value(name: str, level: Any, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Any:
    """A value of the option; None where it is off, and for the heads, which are no argument."""
    b, h, n, m = shape
    if not level:
        return None
    match name:
        case "causal":
            return True
        case "scale":
            return float(rng.choice(SCALES))
        case "softcap":
            return float(rng.choice(CAPS))
        case "bias":
            return _bias(mask_shapes(b, h, n, m), rng)
        case "window":
            left = int(rng.integers(0, 4))
            return (left, None) if level == "left" else (left, int(rng.integers(0, 3)))
        case "sinks":
            return rng.integers(-16, 17, h) / 8
        case "slopes":
            return 2.0 ** -rng.permutation(np.arange(h))
        case "dropout_mask":
            return rng.random(shape) < 0.6
        case _:
            return None


def _bias(shapes: list[tuple[int, ...]], rng: np.random.Generator) -> np.ndarray:
    """Numbers of any broadcastable shape, in half of the cases with some −∞ among them."""
    bias = rng.integers(-64, 65, shapes[rng.integers(len(shapes))]) / 32
    return np.where(rng.random(bias.shape) < 0.25, -np.inf, bias) if rng.random() < 0.5 else bias


def option_calls(
    offered: Collection[str] = EVERY, *, on: Collection[str] = (), off: Collection[str] = ()
) -> st.SearchStrategy[Call]:
    """Calls with some of these options; those `on` have a value in every call, those `off` (the mask may be one) in none.

    Dropout is on where it is said alone: it has a number for every query and key, which laws that move these know nothing of.
    """
    fixed = {"dropout_mask": (False,)} | {name: LEVELS[name][1:] for name in on} | dict.fromkeys(off, (False,))
    rows = [
        row | {name: values[i % len(values)] for name, values in fixed.items()}
        for i, row in enumerate(covering(frozenset(offered)))
    ]
    return st.builds(composed, st.sampled_from(rows), SEEDS)


def within_reach(call: Call, impl: Impl) -> Call:
    """The call without the options that the implementation does not offer; as many key heads as heads, where it needs them."""
    Q, K, V, mask = call.args
    if Q.shape[1] != K.shape[1] and not impl.offers("attention.grouped_heads"):
        K, V = (np.repeat(X, Q.shape[1] // K.shape[1], axis=1) for X in (K, V))
    options = {name: value for name, value in call.kwargs.items() if impl.offers(f"attention.{COMPANIONS.get(name, name)}")}
    return Call((Q, K, V, mask), options)


def offered_by(impl: Impl) -> frozenset[str]:
    """The options that the implementation offers. Raises NotOffered for fewer than two: nothing meets there."""
    offered = frozenset(name for name in OPTIONS["attention"] if impl.offers(f"attention.{name}"))
    if len(offered) < 2:
        raise NotOffered(f"options: expected two that can meet, got {', '.join(offered) or 'none'}")
    return offered


# A layer -----------------------------------------------------------------------------------------------------------------


@st.composite
def layer_calls(draw: st.DrawFn, *, itself: bool | None = None, masked: bool = True) -> Call:
    """X looks at M, or at `itself` (always, never, or sometimes: None), under no mask or one of any shape that broadcasts."""
    b, n, m, h, d_model, _ = draw(sizes())
    X = draw(features(b, n, d_model))
    M = X if (draw(st.booleans()) if itself is None else itself) else draw(features(b, m, d_model))
    mask = None
    if masked and takes_masks() and draw(st.booleans()):
        shape = draw(st.sampled_from(mask_shapes(b, h, n, M.shape[1])))
        mask = np.random.default_rng(draw(SEEDS)).random(shape) < draw(st.sampled_from((0.7, 0.3)))
    return Call((X, M, mask), {"h": h, **draw(multi_head_weights(d_model))})


def with_causal(call: Call, impl: Impl, step: str) -> Call:
    """The call with the causal flag, where that is offered, and with a key for each row to see."""
    return opened(call.but(causal=True) if impl.offers(f"{step}.causal") else call, impl.conventions)


def opened(call: Call, conventions: Conventions) -> Call:
    """The call in which every row of every head sees a key: where one sees none, its mask shows the first, which no order hides.

    Queries in front of the first key (bottom right, n > m) have none to be shown, and are left out.
    """
    X, M, mask = call.args
    if call.kwargs.get("causal") and conventions.causal_alignment == "bottom_right" and X.shape[1] > M.shape[1]:
        first = X.shape[1] - M.shape[1]
        mask = mask[..., first:, :] if mask is not None and mask.shape[-2] > 1 else mask
        call = call.on(X[:, first:], M, mask)
    if mask is None:
        return call
    none_seen = ~seen_by_heads(call.args, call.kwargs, conventions).any(axis=-1, keepdims=True)
    shared = tuple(axis for axis in range(3) if axis < 4 - mask.ndim or mask.shape[axis - 4] == 1)
    shows = np.logical_or.reduce(none_seen, axis=shared, keepdims=True).reshape(*mask.shape[:-1], 1)
    return call.on(call.args[0], M, mask | (shows & (np.arange(mask.shape[-1]) == 0)))
