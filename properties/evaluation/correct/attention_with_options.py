"""Scaled dot-product attention with every option, one matrix after the other."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
    window: tuple[int | None, int | None] | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
    dropout_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Each query's average of the values; `mask` is True where a query may attend."""
    h, g = Q.shape[1], K.shape[1]
    K = K.repeat_interleave(h // g, dim=1)
    V = V.repeat_interleave(h // g, dim=1)
    n, m = Q.shape[2], K.shape[2]
    factor = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale
    scores = wide(Q) @ wide(K).mT * factor
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    ahead = torch.arange(m, device=Q.device) - torch.arange(n, device=Q.device)[:, None]
    if slopes is not None:
        scores = scores - wide(slopes)[:, None, None] * ahead.abs()
    seen = torch.ones(n, m, dtype=torch.bool, device=Q.device)
    if mask is not None:
        seen = seen & mask
    if causal:
        seen = seen & (ahead <= 0)
    left, right = (None, None) if window is None else window
    if left is not None:
        seen = seen & (ahead >= -left)
    if right is not None:
        seen = seen & (ahead <= right)
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, wide(sinks)[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)
    weights = softmax(scores)
    weights = weights[..., :m]
    if dropout_mask is not None:
        weights = weights * dropout_mask / (1 - dropout_p)
    output = weights @ wide(V)
    return output.to(Q.dtype)
