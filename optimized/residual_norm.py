"""Residual connection and LayerNorm: "add & norm".

    LayerNorm(x) = gain · (x − mean x) / √(var x + eps) + bias        (Ba et al. 2016, equation 4; variance over d, not d − 1)
    post-norm:  LayerNorm(x + Sublayer(x))        pre-norm:  x + Sublayer(LayerNorm(x))

Vaswani et al. (2017), section 3.1 (post-norm).
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optimized.parameters import NormParameters


def layer_norm(X: Float[Tensor, "... n d_model"], parameters: NormParameters, eps: float = 1e-5) -> Float[Tensor, "... n d_model"]:
    """One fused kernel, which sums in at least float32: every row gets mean 0 and mean square 1, then a gain and a bias."""
    gain, bias = parameters.gain, parameters.bias
    if _sums_gradients_in_few_bits(X, gain, bias):
        return F.layer_norm(X.float(), X.shape[-1:], gain.float(), bias.float(), eps).to(X.dtype)
    return F.layer_norm(X, X.shape[-1:], gain, bias, eps)


def _sums_gradients_in_few_bits(X: Tensor, gain: Tensor, bias: Tensor) -> bool:
    """Whether the kernel would add up the gradients of gain and bias in X's dtype: of 300 rows of ones, bfloat16 makes 256.

    PyTorch's does on the CPU (seen in 2.13), whatever the dtype of gain and bias.
    """
    learns = torch.is_grad_enabled() and (gain.requires_grad or bias.requires_grad)
    return learns and X.device.type == "cpu" and X.dtype in (torch.bfloat16, torch.float16)


def residual_norm(
    X: Float[Tensor, "... n d_model"],
    sublayer: Callable[[Tensor], Tensor],
    parameters: NormParameters,
    eps: float = 1e-5,
    norm: Literal["post", "pre"] = "post",
) -> Float[Tensor, "... n d_model"]:
    """As in the oracle, whatever the batch: `sublayer` with a residual, the norm after the sum (post) or before it (pre)."""
    if norm == "pre":
        return X + sublayer(layer_norm(X, parameters, eps))
    return layer_norm(X + sublayer(X), parameters, eps)
