"""What a backward is asked: gradients and arguments that no dtype overflows on, and whole numbers of which every sum is exact."""

import numpy as np
from hypothesis import strategies as st

from properties.inputs.attention import attention_calls, full
from properties.inputs.parameters import ACTIVATIONS, Call, Nested, dyadic, features, feed_forward_weights, sizes


@st.composite
def backward_calls(draw: st.DrawFn, *, masked: bool | None = None, fully_masked: bool = False) -> Call:
    """dO, Q, K, V and a mask; at times dO is zero but for its first or last row. No gradient overflows in float16."""
    Q, K, V, mask = draw(attention_calls(masked=masked, fully_masked=fully_masked)).args
    dO = dyadic(draw(st.integers(2, 2**16)), (*Q.shape[:-1], V.shape[-1]), 2.0)
    largest = 2.0 * V.shape[-1] * np.abs(V).max() * max(np.abs(Q).max() * Q.shape[2], np.abs(K).max())
    dO = dO * 2.0 ** min(0, 13 - np.ceil(np.log2(max(largest, 1.0))))
    if draw(st.booleans()):
        row = draw(st.sampled_from((-1, 0)))
        dO = np.where(np.arange(Q.shape[2])[:, None] == row % Q.shape[2], dO, 0.0)
    return Call((dO, Q, K, V, mask), {})


def whole_call(seed: int, n: int, m: int, d_k: int, d_v: int, tied: int) -> Call:
    """A backward of small whole numbers: `tied` keys share the top score, the others are masked.

    Queries and keys have no feature in common, so all scores are 0; two rows of dO are not 0, one of them the last. √d_k is a
    power of two. With a single key in sight every sum is exact, in every order; a weight of 1/2 may be exp(−log 2), rounded.
    """
    rng = np.random.default_rng(seed)
    tied = min(tied, m)
    seen = rng.permuted(np.broadcast_to(np.arange(m) < tied, (1, 2, n, m)), axis=-1)
    seen[..., -1, :] = np.arange(m) >= m - tied  # the last query sees the last keys
    of_queries = np.arange(d_k) % 2 == 0
    Q = np.where(of_queries, rng.integers(-2, 3, (1, 2, n, d_k)), 0.0)
    K = np.where(of_queries, 0.0, rng.integers(-2, 3, (1, 2, m, d_k)))
    V = rng.integers(-1, 2, (1, 2, m, d_v)).astype(np.float64)
    rows = np.isin(np.arange(n), [n - 1, int(rng.integers(0, n))])[:, None]
    dO = np.where(rows, rng.integers(-1, 2, (1, 2, n, d_v)), 0.0)
    return Call((dO, Q, K, V, seen), {})


def size_of_products(call: Call) -> np.ndarray:
    """For each query the largest Σ_c |dO_ic·V_jc| over the keys that it attends to: what its dP is made of. (b, h, n, 1)"""
    dO, Q, K, V, mask = call.args
    b, h, n, _ = Q.shape
    seen = full(mask, b, h, n, K.shape[2])
    return np.where(seen, np.abs(dO) @ np.abs(V).swapaxes(-1, -2), 0.0).max(axis=-1, keepdims=True, initial=0.0)


def off_zero(X: np.ndarray, weights: Nested) -> tuple[np.ndarray, Nested]:
    """The same in whole numbers, and halves of b_1: no hidden unit is at 0, where max(0, ·) has no slope."""
    return np.round(X), weights | {"W_1": np.round(2 * weights["W_1"]), "b_1": np.floor(4 * weights["b_1"]) + 0.5}


@st.composite
def feed_forward_backward_calls(draw: st.DrawFn) -> Call:
    """dY, rows, both maps; with max(0, ·) no hidden unit is at 0, where it has no slope."""
    b, n, _, _, d_model, d_ff = draw(sizes())
    weights = draw(feed_forward_weights(d_model, d_ff))
    X, activation = draw(features(b, n, d_model)), draw(st.sampled_from(ACTIVATIONS))
    if activation == "relu":
        X, weights = off_zero(X, weights)
    dY = dyadic(draw(st.integers(2, 2**16)), X.shape, 2.0)
    return Call((dY, X), {name: weights[name] for name in ("W_1", "b_1", "W_2")} | {"activation": activation})
