"""Attention with a backward pass of its own, in tiles of queries, that recomputes the weights from the log-sums."""

import math
from typing import Any

import torch
from torch import Tensor

TILE = 4


class TiledAttention(torch.autograd.Function):
    """Queries in tiles of TILE rows; the rows that fill up the last tile is fully masked."""

    @staticmethod
    def forward(ctx: Any, Q: Tensor, K: Tensor, V: Tensor, seen: Tensor) -> Tensor:
        """Weights are not kept: the log-sum of each row is enough to compute them again."""
        scores = (Q @ K.mT / math.sqrt(Q.shape[-1])).masked_fill(~seen, -math.inf)
        log_sum = torch.logsumexp(scores, dim=-1, keepdim=True)
        weights = torch.exp(scores - log_sum.clamp(min=torch.finfo(Q.dtype).min))
        ctx.save_for_backward(Q, K, V, seen, log_sum)
        return weights @ V

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """∂S = P ∘ (∂P − Σ P ∘ ∂P), the sum taken over each row."""
        (d_output,) = outputs
        Q, K, V, seen, log_sum = ctx.saved_tensors
        again = (Q @ K.mT / math.sqrt(Q.shape[-1])).masked_fill(~seen, -math.inf)
        weights = torch.exp(again - log_sum.clamp(min=torch.finfo(Q.dtype).min))
        d_weights = d_output @ V.mT
        d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True))
        d_scores = d_scores / math.sqrt(Q.shape[-1])
        return d_scores @ K, d_scores.mT @ Q, weights.mT @ d_output, None


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same numbers as attention in one go, forward and backward."""
    n, m = Q.shape[-2], K.shape[-2]
    seen = torch.ones(*Q.shape[:-1], m, dtype=torch.bool) if mask is None else mask.expand(*Q.shape[:-1], m)
    fill = (0, 0, 0, -n % TILE)
    tiles = torch.nn.functional.pad(Q, fill), torch.nn.functional.pad(seen, fill)
    return TiledAttention.apply(tiles[0], K, V, tiles[1])[..., :n, :]  # type: ignore[index]
