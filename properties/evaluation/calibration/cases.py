"""What the correct variants are run on: small cases of every step in great number, and whole modules up to the paper's width.

In half of the cases numbers have few bits, so that sums are exact or nearly; in the others they fill the dtype's whole mantissa.
Scores stay moderate, since an eager low precision makes softmax arbitrary where a score times the unit roundoff reaches 1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from properties.evaluation.baseline_rules import Case
from properties.implementations.formats import FORMATS

Nested = dict[str, Any]


class Draw:
    """Arrays of numbers from one seed: of few bits, the same in every dtype, unless they may fill a `dtype`."""

    def __init__(self, *seed: int, dtype: str | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.filled = dtype if dtype is not None and self.rng.random() < 0.5 else None

    def size(self, least: int, most: int) -> int:
        """A length; small ones are as likely as large ones."""
        return int(np.exp(self.rng.uniform(np.log(least), np.log(most + 1))))

    def numbers(self, *shape: int, magnitude: float = 1.0) -> np.ndarray:
        """From −magnitude to magnitude: multiples of magnitude/64, or any number of the dtype."""
        if self.filled is None:
            return self.rng.integers(-64, 65, shape) / 64 * magnitude
        return self.fitting(self.rng.uniform(-magnitude, magnitude, shape))

    def fitting(self, x: np.ndarray) -> np.ndarray:
        """The nearest numbers of the dtype; few-bit numbers fit already."""
        return x if self.filled is None else FORMATS[self.filled].to_nearest(x)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """About the size Xavier's rule gives."""
        return self.numbers(rows, columns, magnitude=2.0 ** (1 - rows.bit_length() // 2))

    def features(self, *shape: int) -> np.ndarray:
        """Plain rows; sometimes with an offset, a large scale, equal rows or a single value."""
        X = self.numbers(*shape, magnitude=2.0)
        match self.rng.integers(0, 8):
            case 0:
                return self.fitting(X + 4.0)
            case 1:
                return X * 8.0
            case 2:
                return np.broadcast_to(X[..., :1, :], shape).copy()
            case 3:
                return np.round(X)
            case _:
                return X

    def mask(self, n: int, m: int) -> np.ndarray | None:
        """None, causal, or random with a place to look for every row."""
        match self.rng.integers(0, 3):
            case 0:
                return None
            case 1:
                return np.tri(n, m, dtype=bool)
        mask = self.rng.random((n, m)) < 0.6
        mask[np.arange(n), self.rng.integers(0, m, n)] = True
        return mask

    def norm(self, d: int) -> Nested:
        """Gain and bias."""
        return {"gain": self.fitting(1.0 + self.numbers(d, magnitude=0.5)), "bias": self.numbers(d)}

    def heads(self, d: int) -> Nested:
        """W_Q … b_O."""
        return {f"W_{name}": self.matrix(d, d) for name in "QKVO"} | {
            f"b_{name}": self.numbers(d, magnitude=0.25) for name in "QKVO"
        }

    def feed_forward(self, d: int, d_ff: int) -> Nested:
        """W_1, b_1, W_2, b_2."""
        matrices = {"W_1": self.matrix(d, d_ff), "W_2": self.matrix(d_ff, d)}
        return matrices | {"b_1": self.numbers(d_ff, magnitude=0.25), "b_2": self.numbers(d, magnitude=0.25)}

    def layer(self, d: int, d_ff: int, *, of_decoder: bool = False) -> Nested:
        """One encoder or decoder layer."""
        layer = {"self_attention": self.heads(d), "feed_forward": self.feed_forward(d, d_ff)}
        norms = {f"norm_{i}": self.norm(d) for i in range(1, 4 if of_decoder else 3)}
        return layer | norms | ({"cross_attention": self.heads(d)} if of_decoder else {})


def _attention(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    h, n, m, d = draw.size(1, 3), draw.size(1, most), draw.size(1, most), draw.size(1, 16)
    magnitude = float(draw.rng.choice((0.5, 1.0, 2.0)))
    Q, K = draw.numbers(1, h, n, d, magnitude=magnitude), draw.numbers(1, h, m, d)
    return (Q, K, draw.features(1, h, m, d), draw.mask(n, m)), {}


def _softmax(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    return (draw.numbers(draw.size(1, 8), draw.size(1, 2 * most), magnitude=float(draw.rng.choice((0.5, 4.0, 16.0)))),), {}


def _layer_norm(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    d = draw.size(2, 2 * most)
    return (draw.features(1, draw.size(1, 8), d),), {**draw.norm(d), "eps": float(draw.rng.choice((1e-5, 1e-3)))}


def _residual_norm(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    args, kwargs = _layer_norm(draw, most)
    return (*args, draw.features(*args[0].shape)), kwargs


def _feed_forward(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    d, activation = draw.size(1, most), str(draw.rng.choice(("relu", "gelu", "gelu_tanh")))
    return (draw.features(1, draw.size(1, 8), d),), {**draw.feed_forward(d, draw.size(1, most)), "activation": activation}


def _output_projection(draw: Draw, most: int) -> tuple[tuple[Any, ...], Nested]:
    d, vocab = draw.size(1, 2 * most), draw.size(1, most)
    return (draw.features(1, draw.size(1, 8), d),), {"W": draw.matrix(d, vocab), "b": draw.numbers(vocab)}


STEP_CASES: dict[str, Callable[[Draw, int], tuple[tuple[Any, ...], Nested]]] = {
    "attention": _attention,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "residual_norm": _residual_norm,
    "feed_forward": _feed_forward,
    "output_projection": _output_projection,
}


def step_case(step: str, dtype: str, *seed: int) -> Case:
    """One step alone, axes up to 96 (rows of softmax and norms, and sums of linear maps, twice that)."""
    args, kwargs = STEP_CASES[step](Draw(*seed, dtype=dtype), int(np.random.default_rng(seed).choice((8, 24, 48, 96))))
    return Case(step, args, kwargs, dtype)


WIDTHS = ((16, 2), (32, 4), (64, 4), (128, 8), (512, 8))
"""d_model and heads of modules; the last is the paper's. Cases are spread over them, most of them narrow."""


def module_case(step: str, dtype: str, *seed: int) -> Case:
    """Several steps in a row: multi-head attention, a layer, or six layers of an encoder or a decoder."""
    draw = Draw(*seed, dtype=dtype)
    d, h = WIDTHS[int(draw.rng.choice(len(WIDTHS), p=(0.4, 0.3, 0.2, 0.08, 0.02)))]
    n, m = draw.size(2, 16), draw.size(2, 16)
    X, M = draw.numbers(1, n, d, magnitude=2.0), draw.numbers(1, m, d, magnitude=2.0)
    choices = {"h": h, "activation": str(draw.rng.choice(("relu", "gelu_tanh"))), "norm": "post", "eps": 1e-5}
    match step:
        case "multi_head":
            return Case(step, (X, M), {"h": h, **draw.heads(d)}, dtype)
        case "encoder_layer":
            return Case(step, (X,), {"layer": draw.layer(d, 2 * d), **choices}, dtype)
        case "encoder":
            return Case(step, (X,), {"layers": [draw.layer(d, 2 * d) for _ in range(6)], **choices}, dtype)
        case "decoder":
            return Case(step, (X, M), {"layers": [draw.layer(d, 2 * d, of_decoder=True) for _ in range(6)], **choices}, dtype)
    raise KeyError(step)


MODULES = ("multi_head", "encoder_layer", "encoder", "decoder")
