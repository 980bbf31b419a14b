"""The twenty-two named faults, each on inputs that show it, and graded ones that are made smaller until nobody sees them.

A fault is a correct implementation with one thing wrong, written once, for any `LowPrecision`: run in the dtype under test it is
the suspect; run in float64 it is what the fault does exactly, which a matched probe looks for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from properties.evaluation.calibration.cases import Draw, Nested
from properties.evaluation.calibration.low_precision import LowPrecision

Arguments = tuple[tuple[Any, ...], Nested]


@dataclass(frozen=True)
class Mistake:
    """A correct computation with one thing wrong: the inputs that show it, and what it makes of them in a given arithmetic."""

    name: str
    step: str
    witness: Callable[[int], Arguments]
    wrong: Callable[[Any, tuple[Any, ...], Nested], Any]
    unseen: str = ""  # why a budget does not see it, where none can


# Attention ------------------------------------------------------------------------------------------------------------


def _heads(seed: int, *, tokens: int = 64, d: int = 64, h: int = 4, sharpness: float = 3.0, causal: bool = False) -> Arguments:
    draw = Draw(seed, tokens, d)
    K = np.clip(np.round(draw.rng.standard_normal((1, h, tokens, d)) * 16), -64, 64) / 16
    Q = np.clip(np.round(draw.rng.standard_normal((1, h, tokens, d)) * 16), -64, 64) / 16 * sharpness
    return (_short(Q), _short(K), draw.numbers(1, h, tokens, d, magnitude=2.0), np.tri(tokens, dtype=bool) if causal else None), {}


def _short(x: np.ndarray) -> np.ndarray:
    """Cut to seven bits, and to what is no less than float16's smallest, so that a number is the same in every dtype."""
    mantissa, exponent = np.frexp(x)
    return np.round(np.ldexp(np.round(mantissa * 2.0**7) / 2.0**7, exponent) * 2.0**24) / 2.0**24


def _scaled(factor: Callable[[int], float]) -> Callable[[LowPrecision, tuple[Any, ...], Nested], np.ndarray]:
    def wrong(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
        return arithmetic.attention(*args, **kwargs, scale=factor(args[0].shape[-1]))

    return wrong


def _live_scores_below(seed: int) -> Arguments:
    """Every row may attend to one key alone, whose score is about −12000."""
    (_, _, V, _), _ = _heads(seed, tokens=24, d=4, h=2)
    Q, K = np.full((1, 2, 24, 4), 80.0), np.full((1, 2, 24, 4), -80.0)
    return (Q, K, V, np.eye(24, dtype=bool)), {}


def _finite_mask(arithmetic: LowPrecision, args: tuple[Any, ...], _: Nested) -> np.ndarray:
    (Q, K, V), mask = map(arithmetic.given, args[:3]), args[3]
    scores = arithmetic.product(Q, K.swapaxes(-1, -2)) / arithmetic.inside(np.sqrt(Q.shape[-1]))
    weights = arithmetic.softmax(np.where(mask, scores, -1e4))
    return arithmetic.result(arithmetic.product(arithmetic.given(weights), V))


def _aligned(seed: int) -> Arguments:
    """The key after a query is that query: the mask hides the very token it likes best."""
    (Q, K, V, mask), _ = _heads(seed, tokens=48, d=16, sharpness=1.0, causal=True)
    K[:, :, 31] = Q[:, :, 30]
    return (Q, K, V, mask), {}


def _leak(arithmetic: LowPrecision, args: tuple[Any, ...], _: Nested) -> np.ndarray:
    Q, K, V, mask = args
    leaking = mask.copy()
    leaking[30, 31] = True
    return arithmetic.attention(Q, K, V, leaking)


def _dropped(arithmetic: LowPrecision, args: tuple[Any, ...], _: Nested) -> np.ndarray:
    Q, K, V, _mask = args
    mask = np.ones((Q.shape[2], K.shape[2]), dtype=bool)
    mask[-1, 0] = False
    return arithmetic.attention(Q, K, V, mask)


def _row_before(arithmetic: LowPrecision, args: tuple[Any, ...], _: Nested) -> np.ndarray:
    out = arithmetic.attention(*args)
    out[:, :, -1] = out[:, :, -2]
    return out


def _small_scores(seed: int) -> Arguments:
    return (Draw(seed).numbers(4, 512, magnitude=0.25),), {}


def _stored_sum(arithmetic: LowPrecision, args: tuple[Any, ...], _: Nested) -> np.ndarray:
    exponentials = np.exp(arithmetic.given(args[0]) - arithmetic.given(args[0]).max(axis=-1, keepdims=True))
    total = np.zeros_like(exponentials[..., :1])
    for start in range(0, exponentials.shape[-1], 8):
        total = arithmetic.stored(total + arithmetic.order(exponentials[..., start : start + 8]))
    return arithmetic.result(exponentials / total)


# LayerNorm and GELU ---------------------------------------------------------------------------------------------------


def _rows(spread: float, d: int = 64) -> Callable[[int], Arguments]:
    def witness(seed: int) -> Arguments:
        draw = Draw(seed, d)
        return (_short(draw.rng.standard_normal((1, 16, d)) * spread),), {**draw.norm(d), "eps": 1e-5}

    return witness


def _nearly_constant(seed: int) -> Arguments:
    """Rows of 100 in which two numbers are a half more: what is left of 100² − 100² is mostly rounding."""
    draw = Draw(seed)
    X = np.full((1, 16, 64), 100.0)
    for row in X[0]:
        row[draw.rng.choice(64, 2, replace=False)] += 0.5
    return (X,), {**draw.norm(64), "eps": 1e-5}


def _norm_by(
    formula: Callable[[Any, np.ndarray, float], np.ndarray],
) -> Callable[[LowPrecision, tuple[Any, ...], Nested], np.ndarray]:
    """LayerNorm whose 1/σ is `formula(order, X, eps)`."""

    def wrong(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
        X, d = arithmetic.given(args[0]), arithmetic.inside(args[0].shape[-1])
        centred = X - arithmetic.order(X) / d
        sigma = formula(arithmetic.order, X, arithmetic.inside(kwargs["eps"]))
        return arithmetic.result(centred / sigma * arithmetic.given(kwargs["gain"]) + arithmetic.given(kwargs["bias"]))

    return wrong


def _variance(order: Any, X: np.ndarray, less: int = 0) -> np.ndarray:
    d = X.shape[-1]
    return order(np.square(X - order(X) / X.dtype.type(d))) / X.dtype.type(d - less)


def _one_pass(order: Any, X: np.ndarray, eps: float) -> np.ndarray:
    d = X.dtype.type(X.shape[-1])
    return np.sqrt(np.maximum(order(X * X) / d - np.square(order(X) / d), 0) + eps)


def _tail(seed: int) -> Arguments:
    """Both maps the identity: the activation alone, on [−4, 0]."""
    eye, nothing = np.eye(16), np.zeros(16)
    X = -Draw(seed).rng.integers(0, 129, (1, 16, 16)) / 32
    return (X,), {"W_1": eye, "b_1": nothing, "W_2": eye, "b_2": nothing, "activation": "gelu"}


def _with_activation(
    function: Callable[[LowPrecision, np.ndarray], np.ndarray],
) -> Callable[[LowPrecision, tuple[Any, ...], Nested], np.ndarray]:
    def wrong(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
        inner = arithmetic.given(arithmetic.output_projection(args[0], W=kwargs["W_1"], b=kwargs["b_1"]))
        hidden = arithmetic.result(function(arithmetic, inner))
        return arithmetic.output_projection(hidden, W=kwargs["W_2"], b=kwargs["b_2"])

    return wrong


def _tanh_for_erf(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
    return arithmetic.feed_forward(*args, **{**kwargs, "activation": "gelu_tanh"})


# Modules --------------------------------------------------------------------------------------------------------------


def _four_heads(seed: int) -> Arguments:
    draw = Draw(seed)
    X = draw.numbers(1, 32, 64, magnitude=2.0)
    return (X, X), {"h": 4, **draw.heads(64)}


def _head_louder(factor: float) -> Callable[[LowPrecision, tuple[Any, ...], Nested], np.ndarray]:
    """The second head's rows of W_O times `factor`, as the computation's own dtype has it."""

    def wrong(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
        W_O = kwargs["W_O"].copy()
        W_O[16:32] *= factor
        return arithmetic.multi_head(*args, **{**kwargs, "W_O": W_O})

    return wrong


def _one_layer(seed: int) -> Arguments:
    draw = Draw(seed)
    return (draw.numbers(1, 16, 32, magnitude=2.0),), {
        "layer": draw.layer(32, 64),
        "h": 4,
        "norm": "post",
        "activation": "relu",
        "eps": 1e-5,
    }


def _residual_after_norm(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
    layer, X = kwargs["layer"], args[0]
    for sublayer, norm in (("self_attention", "norm_1"), ("feed_forward", "norm_2")):
        if sublayer == "self_attention":
            out = arithmetic.multi_head(X, X, h=kwargs["h"], **layer[sublayer])
        else:
            out = arithmetic.feed_forward(X, **layer[sublayer])
        X = arithmetic.result(arithmetic.given(X) + arithmetic.given(arithmetic.layer_norm(out, **layer[norm])))
    return X


def _up_to_eight(seed: int) -> Arguments:
    (X,), kwargs = _tail(seed)
    return (-2 * X,), {**kwargs, "activation": "relu"}


def _positive(seed: int) -> Arguments:
    draw = Draw(seed)
    W = 0.5 + np.abs(draw.numbers(64, 32)) / 2
    return (0.5 + np.abs(draw.numbers(1, 32, 64)) / 2,), {"W": _short(W), "b": None}


def _one_weight(change: Callable[[float, LowPrecision], float]) -> Callable[[LowPrecision, tuple[Any, ...], Nested], np.ndarray]:
    def wrong(arithmetic: LowPrecision, args: tuple[Any, ...], kwargs: Nested) -> np.ndarray:
        W = kwargs["W"].copy()
        W[17, 5] = change(W[17, 5], arithmetic)
        return arithmetic.output_projection(*args, W=W)

    return wrong


NAMED: tuple[Mistake, ...] = (
    Mistake("scale √(d+1), d = 64", "attention", _heads, _scaled(lambda d: np.sqrt(d + 1))),
    Mistake("scale √(d+1), d = 16", "attention", lambda seed: _heads(seed, d=16), _scaled(lambda d: np.sqrt(d + 1))),
    Mistake("scale × 1.01", "attention", _heads, _scaled(lambda d: np.sqrt(d) * 1.01)),
    Mistake("scale × 1.001", "attention", _heads, _scaled(lambda d: np.sqrt(d) * 1.001)),
    Mistake("−1e4 for −inf", "attention", _live_scores_below, _finite_mask),
    Mistake("a masked key leaks", "attention", _aligned, _leak),
    Mistake("last row misses a key", "attention", lambda seed: _heads(seed, d=16, sharpness=0.5), _dropped),
    Mistake("last row is the row before", "attention", lambda seed: _heads(seed, d=16, causal=True), _row_before),
    Mistake("row sum in the storage dtype", "softmax", _small_scores, _stored_sum, "in float32 it is no fault"),
    Mistake(
        "eps 1e-6 for 1e-5",
        "layer_norm",
        _rows(3e-3),
        _norm_by(lambda order, X, _: np.sqrt(_variance(order, X) + X.dtype.type(1e-6))),
    ),
    Mistake("eps outside the root", "layer_norm", _rows(3e-3), _norm_by(lambda order, X, eps: np.sqrt(_variance(order, X)) + eps)),
    Mistake(
        "variance over n − 1, d = 64",
        "layer_norm",
        _rows(1.0),
        _norm_by(lambda order, X, eps: np.sqrt(_variance(order, X, 1) + eps)),
    ),
    Mistake(
        "variance over n − 1, d = 512",
        "layer_norm",
        _rows(1.0, d=512),
        _norm_by(lambda o, X, eps: np.sqrt(_variance(o, X, 1) + eps)),
    ),
    Mistake("variance in one pass, mean 100", "layer_norm", _nearly_constant, _norm_by(_one_pass)),
    Mistake("GELU by tanh", "feed_forward", _tail, _tanh_for_erf),
    Mistake(
        "GELU by sigmoid", "feed_forward", _tail, _with_activation(lambda k, x: x / (k.inside(1) + np.exp(x * k.inside(-1.702))))
    ),
    Mistake("one head × 1.01", "multi_head", _four_heads, _head_louder(1.01)),
    Mistake("one head × 1.001", "multi_head", _four_heads, _head_louder(1.001)),
    Mistake("residual after the norm", "encoder_layer", _one_layer, _residual_after_norm),
    Mistake("ReLU6 for ReLU", "feed_forward", _up_to_eight, _with_activation(lambda k, x: np.clip(x, k.inside(0), k.inside(6)))),
    Mistake("one weight × (1 + 2⁻⁶)", "output_projection", _positive, _one_weight(lambda w, _: w * (1 + 2.0**-6))),
    Mistake(
        "one weight one unit in the last place off",
        "output_projection",
        _positive,
        _one_weight(lambda w, k: w * (1 + 2.0 ** (1 - {"float64": 53, "float32": 24, "bfloat16": 8, "float16": 11}[k.dtype]))),
        "nobody can see it: it is the size of one rounding among 64",
    ),
)


GRADED: dict[str, Callable[[float], Mistake]] = {
    "scale": lambda e: Mistake(f"scale × (1 + {e:.3g})", "attention", _heads, _scaled(lambda d: np.sqrt(d) * (1 + e))),
    "head": lambda e: Mistake(f"one head × (1 + {e:.3g})", "multi_head", _four_heads, _head_louder(1 + e)),
    "norm": lambda e: Mistake(
        f"σ × (1 + {e:.3g})",
        "layer_norm",
        _rows(1.0),
        _norm_by(lambda order, X, eps: np.sqrt(_variance(order, X) + eps) * X.dtype.type(1 + e)),
    ),
    "hidden": lambda e: Mistake(
        f"hidden × (1 + {e:.3g})",
        "feed_forward",
        _up_to_eight,
        _with_activation(lambda k, x: np.maximum(x, k.inside(0)) * k.inside(1 + e)),
    ),
}
"""Relative faults of a given size: how small they may be and still be seen is a rule's sensitivity."""
