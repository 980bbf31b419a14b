"""The gradient of Σ direction · logits with respect to every parameter, by autograd."""

from typing import Any

import torch
from torch import Tensor

from properties.evaluation.correct.model import transformer


def gradients(source: Tensor, target: Tensor, *, parameters: dict[str, Any], direction: Tensor, **choices: Any) -> Any:
    """Nested as the parameters are; zeros where a parameter was not used."""
    leaves = _leaves(parameters)
    loss = (direction * transformer(source, target, parameters=leaves, **choices)).sum()
    loss.backward()
    return _gradients_of(leaves)


def _leaves(nested: Any) -> Any:
    if isinstance(nested, dict):
        return {name: _leaves(item) for name, item in nested.items()}
    if isinstance(nested, list | tuple):
        return [_leaves(item) for item in nested]
    return nested.detach().clone().requires_grad_() if isinstance(nested, Tensor) else nested


def _gradients_of(leaves: Any) -> Any:
    if isinstance(leaves, dict):
        return {name: _gradients_of(item) for name, item in leaves.items()}
    if isinstance(leaves, list):
        return [_gradients_of(item) for item in leaves]
    return (torch.zeros_like(leaves) if leaves.grad is None else leaves.grad) if isinstance(leaves, Tensor) else leaves
