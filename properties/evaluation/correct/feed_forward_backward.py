"""Feed-forward backward: through both maps and the activation between them."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide


def slope(x: Tensor, activation: str) -> Tensor:
    """The derivative of the activation."""
    if activation == "relu":
        return (x > 0).to(x.dtype)
    if activation == "gelu":
        below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return below + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    t = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * inner)


def value(x: Tensor, activation: str) -> Tensor:
    """The activation itself."""
    if activation == "relu":
        return x.clamp(min=0)
    if activation == "gelu":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def feed_forward_backward(
    dY: Tensor, X: Tensor, *, W_1: Tensor, b_1: Tensor, W_2: Tensor, activation: str = "relu"
) -> dict[str, Tensor]:
    """By name: dX, dW_1, db_1, dW_2, db_2."""
    rows, d_rows = wide(X).flatten(0, -2), wide(dY).flatten(0, -2)
    before = rows @ wide(W_1) + wide(b_1)
    hidden = value(before, activation)
    d_hidden = d_rows @ wide(W_2).mT
    d_before = d_hidden * slope(before, activation)
    found = {"dX": (d_before @ wide(W_1).mT).reshape(X.shape)}
    found["dW_1"] = rows.mT @ d_before
    found["db_1"] = d_before.sum(dim=0)
    found["dW_2"] = hidden.mT @ d_rows
    found["db_2"] = d_rows.sum(dim=0)
    return {name: each.to(X.dtype) for name, each in found.items()}
