"""Feed-forward: the step where every feature of a word can influence every other; each word by itself.

    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2

Vaswani et al. (2017), section 3.3, equation (2). GELU (Hendrycks & Gimpel 2016), exact or by its tanh approximation, is an
option in place of max(0, ·).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64

from reference.parameters import Activation, FeedForwardParameters
from reference.trace import record


def _erf(x: np.ndarray) -> np.ndarray:
    values: Any = np.frompyfunc(math.erf, 1, 1)(x)  # an array of Python's own numbers
    return values.astype(np.float64)


def relu(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """max(0, x)."""
    return np.maximum(x, 0.0)


def gelu(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """x · Φ(x), with Φ the normal distribution function: x/2 · (1 + erf(x/√2))."""
    return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))


def gelu_tanh(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """The tanh approximation: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * (x * x * x))))


ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def feed_forward(
    X: Float64[np.ndarray, "n d_model"], parameters: FeedForwardParameters, activation: Activation = "relu"
) -> Float64[np.ndarray, "n d_model"]:
    """Two linear maps with an activation between them, applied to every row alike."""
    preactivation = record("preactivation", X @ parameters.W_1 + parameters.b_1)
    hidden = record("hidden", ACTIVATIONS[activation](preactivation))
    return record("output", hidden @ parameters.W_2 + parameters.b_2)
