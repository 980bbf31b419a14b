"""A correct implementation of the steps in a low precision, whose every arithmetic choice is a parameter.

It is written again from the article, in float32 (float64 for float64) with casts to the storage dtype where the mode says so,
and shares no code with the oracle. The hooks that faults override are arguments whose default is the article's value.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise as neighbours
from typing import Any, Literal

import numpy as np
from scipy.special import erf

from properties.evaluation.calibration.orders import Order, pairwise
from properties.implementations.formats import FORMATS

ALL_PRODUCTS = 2**18  # a matrix product of more multiplications than this is BLAS's, cut into pieces
Nested = dict[str, Any]


def blas(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Whatever order the library takes."""
    return A @ B


def split_k(pieces: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The inner axis in pieces, their products added one after another."""

    def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        edges = np.linspace(0, A.shape[-1], pieces + 1).astype(int)
        parts = [A[..., i:j] @ B[..., i:j, :] for i, j in neighbours(edges) if j > i]
        total = parts[0] if parts else A @ B
        for part in parts[1:]:
            total = total + part
        return total

    return product


def summing(order: Order) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Every product rounded, then summed in this order."""

    def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        if A.size * B.shape[-1] > ALL_PRODUCTS:
            return split_k(4)(A, B)
        return order(A[..., :, None, :] * np.swapaxes(B, -1, -2)[..., None, :, :])[..., 0]

    return product


def multiply_add(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """One product after another onto the sum, product and addition rounded together, as one instruction does it."""
    if A.size * B.shape[-1] > ALL_PRODUCTS:
        return split_k(4)(A, B)
    total = np.zeros((*A.shape[:-1], B.shape[-1]), dtype=A.dtype)
    for k in range(A.shape[-1]):  # a product of two float32 is exact in float64
        total = (total + A[..., :, k, None].astype(np.float64) * B[..., None, k, :]).astype(A.dtype)
    return total


@dataclass(frozen=True)
class LowPrecision:
    """One set of choices; its methods are steps, on float64 arrays that are representable in `dtype`."""

    dtype: str
    mode: Literal["eager", "fused"] = "eager"
    order: Order = pairwise
    product: Callable[[np.ndarray, np.ndarray], np.ndarray] = blas
    softmax_style: Literal["plain", "reciprocal", "base 2", "online"] = "plain"
    block: int = 16  # keys that an online softmax takes at a time
    scale_queries: bool = False  # whether attention divides Q, which an eager one stores, instead of the scores
    cast_weights: bool = False  # whether a fused attention casts P
    norm_style: Literal["two passes", "Welford", "folded", "cast before affine"] = "two passes"
    inside: type = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inside", np.float64 if self.dtype == "float64" else np.float32)

    def stored(self, x: np.ndarray) -> np.ndarray:
        """As it is after a trip through memory."""
        if self.dtype in ("float64", "float32"):
            return x
        return FORMATS[self.dtype].to_nearest(x.astype(np.float64)).astype(np.float32)

    def named(self, x: np.ndarray) -> np.ndarray:
        """A named matrix inside a step: stored by an eager implementation."""
        return self.stored(x) if self.mode == "eager" else x

    def given(self, x: np.ndarray) -> np.ndarray:
        """An argument in the dtype of the computation."""
        return np.asarray(x).astype(self.inside)

    # Steps on arrays of the computation's own dtype ---------------------------------------------------------------------

    def _linear(self, X: np.ndarray, W: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        Y = self.product(X, self.given(W))
        return self.named(Y if b is None else Y + self.given(b))

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        largest = scores.max(axis=-1, keepdims=True)
        largest = np.where(np.isinf(largest), self.inside(0), largest)
        if self.softmax_style == "base 2":
            log2e = self.inside(np.log2(np.e))
            exponentials = np.exp2(scores * log2e - largest * log2e)
        else:
            exponentials = np.exp(scores - largest)
        total = self.order(exponentials)
        total = np.where(total == 0, self.inside(1), total)
        if self.softmax_style == "reciprocal":
            return exponentials * (self.inside(1) / total)
        return exponentials / total

    def _online(self, scores: np.ndarray, V: np.ndarray, *, cast: bool) -> np.ndarray:
        """Keys a block at a time, rescaling what was summed before by exp(old maximum − new maximum)."""
        largest = np.full((*scores.shape[:-1], 1), -np.inf, dtype=self.inside)
        total = np.zeros_like(largest)
        out = np.zeros((*scores.shape[:-1], V.shape[-1]), dtype=self.inside)
        for start in range(0, scores.shape[-1], self.block):
            block = scores[..., start : start + self.block]
            new = np.maximum(largest, block.max(axis=-1, keepdims=True))
            safe = np.where(np.isinf(new), self.inside(0), new)
            old, exponentials = np.exp(largest - safe), np.exp(block - safe)
            total = total * old + self.order(exponentials)
            weights = self.stored(exponentials) if cast else exponentials
            out = out * old + self.product(weights, V[..., start : start + self.block, :])
            largest = new
        return out / np.where(total == 0, self.inside(1), total)

    def _attention(
        self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None, *, scale: float | None = None
    ) -> np.ndarray:
        scale = np.sqrt(Q.shape[-1]) if scale is None else scale
        if self.scale_queries:
            scores = self.named(self.product(self.named(Q / self.inside(scale)), np.swapaxes(K, -1, -2)))
        else:
            scores = self.named(self.named(self.product(Q, np.swapaxes(K, -1, -2))) / self.inside(scale))
        if mask is not None:
            scores = np.where(mask, scores, self.inside(-np.inf))
        if self.softmax_style == "online":
            return self.named(self._online(scores, V, cast=self.cast_weights or self.mode == "eager"))
        weights = self._weights(scores)
        weights = self.stored(weights) if self.cast_weights or self.mode == "eager" else weights
        return self.named(self.product(weights, V))

    def _layer_norm(self, X: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
        d, gain, bias = self.inside(X.shape[-1]), self.given(gain), self.given(bias)
        mean = self.order(X) / d
        variance = self._welford(X) if self.norm_style == "Welford" else self.order(np.square(X - mean)) / d
        rstd = self.inside(1) / np.sqrt(variance + self.inside(eps))
        if self.norm_style == "folded":
            return self.stored((X * rstd + -mean * rstd) * gain + bias)
        normalised = (X - mean) * rstd
        if self.norm_style == "cast before affine":
            normalised = self.stored(normalised)
        return self.stored(normalised * gain + bias)

    def _welford(self, X: np.ndarray) -> np.ndarray:
        """The variance in one pass that keeps the running mean."""
        mean, squares = np.zeros_like(X[..., :1]), np.zeros_like(X[..., :1])
        for i in range(X.shape[-1]):
            difference = X[..., i : i + 1] - mean
            mean = mean + difference / self.inside(i + 1)
            squares = squares + difference * (X[..., i : i + 1] - mean)
        return squares / self.inside(X.shape[-1])

    def _activated(self, x: np.ndarray, activation: str) -> np.ndarray:
        one, half = self.inside(1), self.inside(0.5)
        if activation == "relu":
            return np.maximum(x, self.inside(0))
        if activation == "gelu":
            return half * x * (one + erf(x * self.inside(np.sqrt(0.5))))
        return half * x * (one + np.tanh(self.inside(np.sqrt(2 / np.pi)) * (x + self.inside(0.044715) * x * x * x)))

    def _feed_forward(self, X: np.ndarray, weights: Nested, activation: str) -> np.ndarray:
        hidden = self._activated(self._linear(X, weights["W_1"], weights["b_1"]), activation)
        return self._linear(self.stored(hidden), weights["W_2"], weights["b_2"])

    def _heads(self, X: np.ndarray, h: int) -> np.ndarray:
        b, n, d = X.shape
        return self.stored(X).reshape(b, n, h, d // h).swapaxes(1, 2)

    def _multi_head(self, X: np.ndarray, M: np.ndarray, weights: Nested, h: int, mask: np.ndarray | None) -> np.ndarray:
        Q, K, V = (
            self._heads(self._linear(A, weights[f"W_{name}"], weights[f"b_{name}"]), h)
            for name, A in (("Q", X), ("K", M), ("V", M))
        )
        context = self.stored(self._attention(Q, K, V, mask))
        concatenated = context.swapaxes(1, 2).reshape(*X.shape[:2], -1)
        return self._linear(concatenated, weights["W_O"], weights["b_O"])

    def _sublayer(self, X: np.ndarray, run: Callable[[np.ndarray], np.ndarray], norm: Nested, choices: Nested) -> np.ndarray:
        eps = choices.get("eps", 1e-5)
        if choices.get("norm", "post") == "pre":
            return self.named(X + run(self._layer_norm(X, norm["gain"], norm["bias"], eps)))
        return self._layer_norm(self.named(X + run(X)), norm["gain"], norm["bias"], eps)

    def _encoder_layer(self, X: np.ndarray, mask: np.ndarray | None, layer: Nested, choices: Nested) -> np.ndarray:
        h, activation = choices["h"], choices.get("activation", "relu")
        X = self._sublayer(X, lambda Y: self._multi_head(Y, Y, layer["self_attention"], h, mask), layer["norm_1"], choices)
        return self._sublayer(X, lambda Y: self._feed_forward(Y, layer["feed_forward"], activation), layer["norm_2"], choices)

    def _decoder_layer(self, X: np.ndarray, M: np.ndarray, layer: Nested, choices: Nested) -> np.ndarray:
        h, activation, past = choices["h"], choices.get("activation", "relu"), np.tri(X.shape[1], dtype=bool)
        X = self._sublayer(X, lambda Y: self._multi_head(Y, Y, layer["self_attention"], h, past), layer["norm_1"], choices)
        X = self._sublayer(X, lambda Y: self._multi_head(Y, M, layer["cross_attention"], h, None), layer["norm_2"], choices)
        return self._sublayer(X, lambda Y: self._feed_forward(Y, layer["feed_forward"], activation), layer["norm_3"], choices)

    # The face of `properties.steps` -------------------------------------------------------------------------------------

    def result(self, x: np.ndarray) -> np.ndarray:
        """What a caller gets: stored in the dtype, seen in float64."""
        return self.stored(x).astype(np.float64)

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Rows of scores to weights."""
        scores = self.given(scores)
        if self.softmax_style == "online":
            return self.result(self._online(scores, np.eye(scores.shape[-1], dtype=self.inside), cast=False))
        return self.result(self._weights(scores))

    def attention(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: Any = None, **faults: Any) -> np.ndarray:
        """All heads of all rows at once."""
        return self.result(self._attention(self.given(Q), self.given(K), self.given(V), mask, **faults))

    def layer_norm(self, X: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
        """Each row by itself."""
        return self.result(self._layer_norm(self.given(X), gain, bias, eps))

    def residual_norm(self, X: np.ndarray, Y: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
        """The norm of the sum."""
        return self.result(self._layer_norm(self.named(self.given(X) + self.given(Y)), gain, bias, eps))

    def feed_forward(self, X: np.ndarray, *, activation: str = "relu", **weights: Any) -> np.ndarray:
        """Two linear maps."""
        return self.result(self._feed_forward(self.given(X), weights, activation))

    def output_projection(self, X: np.ndarray, *, W: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
        """One linear map."""
        return self.result(self._linear(self.given(X), W, b))

    def multi_head(self, X: np.ndarray, M: np.ndarray, mask: Any = None, *, h: int, **weights: Any) -> np.ndarray:
        """Heads beside one another."""
        return self.result(self._multi_head(self.given(X), self.given(M), weights, h, mask))

    def encoder_layer(self, X: np.ndarray, mask: Any = None, *, layer: Nested, **choices: Any) -> np.ndarray:
        """One layer."""
        return self.result(self._encoder_layer(self.given(X), mask, layer, choices))

    def encoder(self, X: np.ndarray, mask: Any = None, *, layers: list[Nested], **choices: Any) -> np.ndarray:
        """One layer after another."""
        X = self.given(X)
        for layer in layers:
            X = self._encoder_layer(X, mask, layer, choices)
        return self.result(X)

    def decoder(self, X: np.ndarray, M: np.ndarray, *, layers: list[Nested], **choices: Any) -> np.ndarray:
        """One layer after another, each with the same M."""
        X, M = self.given(X), self.given(M)
        for layer in layers:
            X = self._decoder_layer(X, M, layer, choices)
        return self.result(X)
