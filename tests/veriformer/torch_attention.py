"""Attention of torch tensors as the tests of the assert use it: its inputs, and two correct ways to compute it."""

import math

import torch

LOW = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()


def inputs(dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Q, K, V of two heads, five tokens, eight features."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, 2, 5, 8, generator=generator).to(dtype) for _ in range(3))


def eager(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None
) -> torch.Tensor:
    """Attention, operator by operator, each result stored in the dtype."""
    scores = Q @ K.mT * (1 / math.sqrt(Q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1) @ V


def fused(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """In float32 throughout, rounded once."""
    return eager(Q.float(), K.float(), V.float(), mask).to(Q.dtype)
