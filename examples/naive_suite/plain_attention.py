"""A plain attention kernel with every option: what `test_plain_attention.py` tests."""

import math

import torch
from torch import Tensor


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
) -> Tensor:
    """(b, h, n, d_v) of Q (b, h, n, d_k), K (b, g, m, d_k), V (b, g, m, d_v); a mask is True where a query may attend."""
    h, g = Q.shape[1], K.shape[1]
    n, m = Q.shape[2], K.shape[2]
    wide = torch.promote_types(Q.dtype, torch.float32)
    q, k, v = Q.to(wide), K.to(wide).repeat_interleave(h // g, dim=1), V.to(wide).repeat_interleave(h // g, dim=1)
    scores = q @ k.mT * (1 / math.sqrt(Q.shape[-1]) if scale is None else scale)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias.to(wide)
    ahead = torch.arange(m) - torch.arange(n)[:, None]
    scores = scores if slopes is None else scores - slopes.to(wide)[:, None, None] * ahead.abs()
    left, right = window or (None, None)
    seen = torch.ones(n, m, dtype=torch.bool) if mask is None else mask
    seen = seen & (ahead <= 0) if causal else seen
    seen = seen if left is None else seen & (ahead >= -left)
    seen = seen if right is None else seen & (ahead <= right)
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.to(wide)[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :m].nan_to_num(0.0)
    return (weights @ v).to(Q.dtype)
