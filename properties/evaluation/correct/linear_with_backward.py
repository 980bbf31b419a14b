"""A linear map with a backward pass of its own, in blocks of rows."""

from typing import Any

import torch
from torch import Tensor

BLOCK = 32


class BlockedLinear(torch.autograd.Function):
    """The gradients of W and b are summed in at least float32, block by block; the last block may be shorter."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        """X W + b."""
        ctx.save_for_backward(X, W)
        ctx.biased = b is not None
        return X @ W if b is None else X @ W + b

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Xᵀ ∂Y and the sum of ∂Y over all rows."""
        (d_output,) = outputs
        X, W = ctx.saved_tensors
        rows, d_rows = (x.flatten(0, -2).to(torch.promote_types(x.dtype, torch.float32)) for x in (X, d_output))
        d_W, d_b = torch.zeros_like(W, dtype=rows.dtype), torch.zeros_like(W[0], dtype=rows.dtype)
        for start in range(0, len(rows), BLOCK):
            d_W += rows[start : start + BLOCK].mT @ d_rows[start : start + BLOCK]
        for start in range(0, len(d_rows), BLOCK):
            d_b += d_rows[start : start + BLOCK].sum(dim=0)
        return d_output @ W.mT, d_W.to(W.dtype), d_b.to(W.dtype) if ctx.biased else None


def linear(X: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """X W + b."""
    return BlockedLinear.apply(X, W, b)  # type: ignore[return-value]
