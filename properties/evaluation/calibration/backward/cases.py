"""What correct backwards are run on: small cases of each step in great number, as forward, with a gradient of the result.

With max(0, ·) no hidden unit is near 0: there rounding alone decides whether it has a slope.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from properties.evaluation.baseline_rules import Case
from properties.evaluation.calibration.cases import STEP_CASES, Draw, Nested
from properties.inputs.backward import off_zero

Arguments = tuple[tuple[Any, ...], Nested]


def _gradient(draw: Draw, *shape: int) -> np.ndarray:
    """Of every row, or at times of one alone."""
    dY = draw.numbers(*shape, magnitude=2.0)
    if draw.rng.random() < 0.25:
        dY[..., draw.rng.permutation(shape[-2])[1:], :] = 0.0
    return dY


def _attention(draw: Draw, most: int) -> Arguments:
    (Q, K, V, mask), _ = STEP_CASES["attention"](draw, most)
    if draw.rng.random() < 0.5:  # not every kernel takes other values than keys
        V = draw.features(*K.shape)
    if mask is not None and draw.rng.random() < 0.25:
        mask = mask & (np.arange(len(mask)) != draw.rng.integers(0, len(mask)))[:, None]  # a fully masked row
    return (_gradient(draw, *Q.shape[:3], V.shape[-1]), Q, K, V, mask), {}


def _softmax(draw: Draw, most: int) -> Arguments:
    (scores,), _ = STEP_CASES["softmax"](draw, most)
    return (_gradient(draw, *scores.shape), scores), {}


def _layer_norm(draw: Draw, most: int) -> Arguments:
    (X,), kwargs = STEP_CASES["layer_norm"](draw, most)
    return (_gradient(draw, *X.shape), X), {"gain": kwargs["gain"], "eps": kwargs["eps"]}


def _feed_forward(draw: Draw, most: int) -> Arguments:
    (X,), kwargs = STEP_CASES["feed_forward"](draw, most)
    weights = {name: kwargs[name] for name in ("W_1", "b_1", "W_2", "activation")}
    if weights["activation"] == "relu":
        X, weights = off_zero(X, weights)
    return (_gradient(draw, *X.shape), X), weights


CASES: dict[str, Callable[[Draw, int], Arguments]] = {
    "attention_backward": _attention,
    "softmax_backward": _softmax,
    "layer_norm_backward": _layer_norm,
    "feed_forward_backward": _feed_forward,
}


def case_of(step: str, dtype: str, *seed: int) -> Case:
    """One step, axes up to 64 (rows of softmax and norms twice that)."""
    args, kwargs = CASES[step](Draw(*seed, dtype=dtype), int(np.random.default_rng(seed).choice((8, 16, 32, 64))))
    return Case(step, args, kwargs, dtype)
