"""Correct forward functions of PyTorch, and what autograd makes of them: gradients by name, float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from properties.evaluation.calibration.backward.low_precision import Gradients
from properties.implementations.autograd import FORWARD, backward_of
from properties.implementations.impl import DTYPES as TORCH
from properties.implementations.torch_functional import ACTIVATIONS
from properties.steps import STEPS


def called(backward: Callable[..., Any], step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> Gradients:
    """What a backward on tensors gives for these arrays."""
    tensors = tuple(_tensor(value, dtype) for value in args)
    found = backward(*tensors, **{name: _tensor(value, dtype) for name, value in kwargs.items()})
    found = found if isinstance(found, tuple | dict) else (found,)
    named = found if isinstance(found, dict) else dict(zip(STEPS[step].results or ("dS",), found, strict=True))
    return {name: gradient.detach().to(torch.float64).numpy() for name, gradient in named.items()}


def derived(forward: Callable[..., Tensor], step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> Gradients:
    """The same by autograd of a forward."""
    return called(backward_of(step, forward), step, args, kwargs, dtype)


def by_hand(step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> Gradients:
    """By autograd of plain operators, each of which stores what it gives."""
    return derived(PLAIN[FORWARD[step]], step, args, kwargs, dtype)


def _tensor(value: Any, dtype: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    return tensor.to(TORCH[dtype]) if value.dtype == np.float64 else tensor


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """A chain of operators; a fully masked row gets zeros."""
    scores = Q @ K.mT / Q.shape[-1] ** 0.5
    if mask is None:
        return torch.softmax(scores, dim=-1) @ V
    hidden = ~mask.any(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~mask & ~hidden, -torch.inf), dim=-1)
    return weights.masked_fill(hidden, 0.0) @ V


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis."""
    return torch.softmax(scores, dim=-1)


def layer_norm(X: Tensor, *, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """In at least float32, as models write it."""
    wide = X.to(torch.promote_types(X.dtype, torch.float32))
    centred = wide - wide.mean(-1, keepdim=True)
    normalised = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (normalised * gain + bias).to(X.dtype)


def feed_forward(X: Tensor, *, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, activation: str) -> Tensor:
    """Two products with torch's activation between them."""
    return ACTIVATIONS[activation](X @ W_1 + b_1) @ W_2 + b_2


PLAIN: dict[str, Callable[..., Tensor]] = {
    "attention": attention,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "feed_forward": feed_forward,
}
