"""Attention with a backward of its own for autograd, and what autograd makes of it."""

import math
from typing import Any

import torch
from torch import Tensor


class Attention(torch.autograd.Function):
    """The weights are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None) -> Tensor:
        """The output, zeros for a fully masked row."""
        scores = Q @ K.mT / math.sqrt(Q.shape[-1])
        scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
        weights = torch.softmax(scores, dim=-1)
        weights = weights if mask is None else torch.where(mask.any(dim=-1, keepdim=True), weights, 0.0)
        ctx.save_for_backward(Q, K, V, weights)
        return weights @ V

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Only the gradients that are asked for."""
        (d_output,) = outputs
        Q, K, V, weights = ctx.saved_tensors
        d_weights = d_output @ V.mT
        row_sums = (weights * d_weights).sum(dim=-1, keepdim=True)
        d_scores = (weights * (d_weights - row_sums)) / math.sqrt(Q.shape[-1])
        d_queries = d_scores @ K if ctx.needs_input_grad[0] else None
        d_keys = d_scores.mT @ Q if ctx.needs_input_grad[1] else None
        d_values = weights.mT @ d_output if ctx.needs_input_grad[2] else None
        return d_queries, d_keys, d_values, None


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each query's average of the values."""
    return Attention.apply(Q, K, V, mask)  # type: ignore[return-value]


def attention_backward(dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """dQ, dK and dV, as autograd hands them on."""
    leaves = [each.detach().requires_grad_() for each in (Q, K, V)]
    output = attention(*leaves, mask=mask)
    return torch.autograd.grad(output, leaves, dO)


def attention_gradient(
    dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, of: str, passes: int = 1
) -> Tensor:
    """One gradient alone, from the last of so many passes."""
    leaves = {name: each.detach().requires_grad_(name == of) for name, each in (("Q", Q), ("K", K), ("V", V))}
    output = attention(*leaves.values(), mask=mask)
    found = [torch.autograd.grad(output, leaves[of], dO, retain_graph=True)[0] for _ in range(passes)]
    return found[-1]
