"""Feed-forward: the step where every feature of a token can influence every other; each token by itself.

    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2

Vaswani et al. (2017), section 3.3, equation (2). GELU (Hendrycks & Gimpel 2016), exact or by its tanh approximation, is an
option in place of max(0, ·).
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optimized.multi_head import linear
from optimized.parameters import Activation, FeedForwardParameters


def relu(x: Float[Tensor, "... d_ff"]) -> Float[Tensor, "... d_ff"]:
    """The kernel of torch for max(0, x)."""
    return F.relu(x)


def gelu(x: Float[Tensor, "... d_ff"]) -> Float[Tensor, "... d_ff"]:
    """The kernel of torch for x · Φ(x), with Φ the normal distribution function."""
    return F.gelu(x)


def gelu_tanh(x: Float[Tensor, "... d_ff"]) -> Float[Tensor, "... d_ff"]:
    """The kernel of torch for the tanh approximation of x · Φ(x)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def feed_forward(
    X: Float[Tensor, "... n d_model"], parameters: FeedForwardParameters, activation: Activation = "relu"
) -> Float[Tensor, "... n d_model"]:
    """The rows of the whole batch go through each linear map as one matrix product."""
    hidden = ACTIVATIONS[activation](linear(X, parameters.W_1, parameters.b_1))
    return linear(hidden, parameters.W_2, parameters.b_2)
