"""What the peers that compute in torch share: arguments as tensors, and one step of training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimized.training import label_smoothed_loss
from properties.implementations.impl import DTYPES


def tensors(value: Any, dtype: str, device: str) -> Any:
    """Nested NumPy arguments as torch tensors: float64 arrays in `dtype`, others in their own; new memory for each call."""
    if isinstance(value, dict):
        return {name: tensors(part, dtype, device) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(tensors(part, dtype, device) for part in value)
    if not hasattr(value, "dtype"):
        return value
    tensor = torch.from_numpy(value)
    return tensor.to(device, DTYPES[dtype] if tensor.is_floating_point() else tensor.dtype, copy=True)


def learn(forward: Callable[..., Tensor], weights: list[Tensor]) -> Callable[..., Any]:
    """One training step as a function of source and target: forward, the paper's loss, backward, Adam. It returns the logits.

    The learning rate is 0: all the arithmetic is done and no weight changes, so that every timed call answers the same question.
    Gradients are not judged here; the properties do that.
    """
    adam = torch.optim.Adam(weights, lr=0.0, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def step(source: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            logits = forward(source, target)
            label_smoothed_loss(logits, target.roll(-1, dims=1)).backward()
        adam.step()
        adam.zero_grad()
        return logits.detach()

    return step
