"""LayerNorm and the residual connection around a sublayer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide


def layer_norm(X: Tensor, *, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Every row with mean 0 and mean square 1, then a gain and a bias for each feature."""
    x = wide(X)
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    normalised = centred / torch.sqrt(variance + eps)
    return (normalised * gain + bias).to(X.dtype)


def residual_norm(X: Tensor, Y: Tensor, *, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm(X + Y)."""
    return layer_norm(X + Y, gain=gain, bias=bias, eps=eps)


def add_norm(X: Tensor, sublayer: Callable[[Tensor], Tensor], weights: dict[str, Any], norm: str, eps: float) -> Tensor:
    """Run `sublayer` with its input added to its output, and the norm after the sum ("post") or before the sublayer ("pre")."""
    if norm == "pre":
        normed = layer_norm(X, **weights, eps=eps)
        return X + sublayer(normed)
    return layer_norm(X + sublayer(X), **weights, eps=eps)
