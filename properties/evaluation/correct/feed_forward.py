"""The feed-forward step: two linear maps with an activation between them."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.linear import linear
from properties.evaluation.correct.wide import wide


def activated(X: Tensor, activation: str) -> Tensor:
    """max(0, x), or GELU: exact, or by its tanh approximation."""
    x = wide(X)
    if activation == "relu":
        return X.clamp(min=0)
    if activation == "gelu":
        return (0.5 * x * (1 + torch.erf(x / math.sqrt(2)))).to(X.dtype)
    return (0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).to(X.dtype)


def feed_forward(X: Tensor, *, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, activation: str = "relu") -> Tensor:
    """The same two maps for every token."""
    hidden = activated(linear(X, W_1, b_1), activation)
    return linear(hidden, W_2, b_2)
