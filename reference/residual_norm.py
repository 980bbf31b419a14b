"""Residual connection and LayerNorm: "add & norm".

    LayerNorm(x) = gain · (x − mean x) / √(var x + eps) + bias        (Ba et al. 2016, equation 4; variance over d, not d − 1)
    post-norm:  LayerNorm(x + Sublayer(x))        pre-norm:  x + Sublayer(LayerNorm(x))

Vaswani et al. (2017), section 3.1 (post-norm).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float64

from reference.parameters import NormParameters
from reference.trace import record


def layer_norm(
    X: Float64[np.ndarray, "n d_model"], parameters: NormParameters, eps: float = 1e-5
) -> Float64[np.ndarray, "n d_model"]:
    """Give every row mean 0 and mean square 1, then a gain and a bias per feature."""
    centred = X - X.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    normalised = centred / np.sqrt(variance + eps)
    return normalised * parameters.gain + parameters.bias


def residual_norm(
    X: Float64[np.ndarray, "n d_model"],
    sublayer: Callable[[np.ndarray], np.ndarray],
    parameters: NormParameters,
    eps: float = 1e-5,
    norm: Literal["post", "pre"] = "post",
    name: str = "add_norm",
) -> Float64[np.ndarray, "n d_model"]:
    """Run `sublayer` with its input added to its output, and the norm after the sum (post) or before the sublayer (pre).

    A trace shows the two matrices as `name`.residual and `name`.norm.
    """
    if norm == "pre":
        return record(f"{name}.residual", X + sublayer(record(f"{name}.norm", layer_norm(X, parameters, eps))))
    residual = record(f"{name}.residual", X + sublayer(X))
    return record(f"{name}.norm", layer_norm(residual, parameters, eps))
