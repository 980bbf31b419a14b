"""Feed-forward backward: through the second linear map, the activation, the first.

a = x W_1 + b_1,   u = act(a),   y = u W_2 + b_2

du = dy W_2ᵀ        dW_2 = uᵀ dy        db_2 = Σ_rows dy
da = du ∘ act′(a)
dx = da W_1ᵀ        dW_1 = xᵀ da        db_1 = Σ_rows da
"""

import numpy as np
from jaxtyping import Float64

from reference.backward.multi_head import linear_backward
from reference.feed_forward import ACTIVATIONS, _erf
from reference.parameters import Activation, FeedForwardParameters
from reference.trace import record


def relu_slope(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """1 above 0 and 0 below. At 0 max(0, x) has no slope; 0 is given, as everywhere in practice."""
    return np.where(x > 0.0, 1.0, 0.0)


def gelu_slope(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """(x Φ(x))′ = Φ(x) + x φ(x), with φ(x) = exp(−x²/2) / √(2π)."""
    below = 0.5 * (1.0 + _erf(x / np.sqrt(2.0)))
    density = np.exp(-0.5 * (x * x)) / np.sqrt(2.0 * np.pi)
    return below + x * density


def gelu_tanh_slope(x: Float64[np.ndarray, "n d_ff"]) -> Float64[np.ndarray, "n d_ff"]:
    """(x/2 · (1 + t))′ = (1 + t)/2 + x/2 · (1 − t²) · z′, with t = tanh z, z = √(2/π) · (x + 0.044715 x³)."""
    t = np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * (x * x * x)))
    inner = np.sqrt(2.0 / np.pi) * (1.0 + 0.134145 * (x * x))
    return 0.5 * (1.0 + t) + 0.5 * x * ((1.0 - t * t) * inner)


SLOPES = {"relu": relu_slope, "gelu": gelu_slope, "gelu_tanh": gelu_tanh_slope}


def feed_forward_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    parameters: FeedForwardParameters,
    activation: Activation = "relu",
) -> tuple[Float64[np.ndarray, "n d_model"], FeedForwardParameters]:
    """dX, and the gradients of both maps; b_2 makes no difference."""
    preactivation = record("preactivation", X @ parameters.W_1 + parameters.b_1)
    hidden = record("hidden", ACTIVATIONS[activation](preactivation))

    # back through y = u W_2 + b_2
    d_hidden, dW_2, db_2 = linear_backward(dY, hidden, parameters.W_2, parameters.b_2)

    # back through u = act(a)
    d_preactivation = record("dpreactivation", record("dhidden", d_hidden) * SLOPES[activation](preactivation))

    # back through a = x W_1 + b_1
    dX, dW_1, db_1 = linear_backward(d_preactivation, X, parameters.W_1, parameters.b_1)
    assert db_1 is not None
    assert db_2 is not None
    return dX, FeedForwardParameters(dW_1, db_1, dW_2, db_2)
