"""LayerNorm and the residual connection backward.

    y = gain ∘ x̂ + bias,   x̂ = (x − mean x) / r,   r = √(mean (x − mean x)² + eps)

    dbias = Σ_rows dy      dgain = Σ_rows dy ∘ x̂      dx̂ = gain ∘ dy
    ∂x̂_k/∂x_j = (δ_jk − 1/d − x̂_k x̂_j / d) / r        since ∂r/∂x_j = x̂_j / d
    dx = (dx̂ − mean dx̂ − x̂ · mean(x̂ ∘ dx̂)) / r

A row of dx sums to 0, since a constant added to a row changes nothing; and as eps → 0 it is orthogonal to x̂, since neither does a
factor.
"""

from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float64

from reference.parameters import NormParameters
from reference.residual_norm import layer_norm
from reference.trace import record

Gradients = TypeVar("Gradients")


def layer_norm_backward(
    dY: Float64[np.ndarray, "n d_model"], X: Float64[np.ndarray, "n d_model"], parameters: NormParameters, eps: float = 1e-5
) -> tuple[Float64[np.ndarray, "n d_model"], NormParameters]:
    """dX, and the gradients of gain and bias; the bias itself makes no difference."""
    centred = X - X.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    r = np.sqrt(variance + eps)
    normalised = centred / r

    # back through y = gain ∘ x̂ + bias
    gradients = NormParameters((dY * normalised).sum(axis=0), dY.sum(axis=0))
    d_normalised = dY * parameters.gain

    # back through x̂ = (x − mean x) / r
    mean = d_normalised.mean(axis=-1, keepdims=True)
    along = (d_normalised * normalised).mean(axis=-1, keepdims=True)
    return (d_normalised - mean - normalised * along) / r, gradients


def residual_norm_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    sublayer: Callable[[np.ndarray], np.ndarray],
    sublayer_backward: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Gradients]],
    parameters: NormParameters,
    eps: float = 1e-5,
    norm: Literal["post", "pre"] = "post",
) -> tuple[Float64[np.ndarray, "n d_model"], NormParameters, Gradients]:
    """dX, the gradients of the norm, and what `sublayer_backward(its output's gradient, its input)` says of its parameters.

    post:  R = X + F(X),  Y = norm(R)   ⇒  dR by the norm,  dX = dR + dF(dR)
    pre:   Y = X + F(norm(X))           ⇒  dX = dY + the norm's gradient of dF(dY)
    """
    if norm == "pre":
        normalised = record("norm", layer_norm(X, parameters, eps))
        d_normalised, of_sublayer = sublayer_backward(dY, normalised)
        dX, of_norm = layer_norm_backward(record("dnorm", d_normalised), X, parameters, eps)
        return dY + dX, of_norm, of_sublayer
    residual = record("residual", X + sublayer(X))
    d_residual, of_norm = layer_norm_backward(dY, residual, parameters, eps)
    dX, of_sublayer = sublayer_backward(record("dresidual", d_residual), X)
    return d_residual + dX, of_norm, of_sublayer
