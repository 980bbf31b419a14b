"""Attention over chunks of keys, each with its own softmax, merged afterwards by their log-sums (split-K decoding)."""

import math

import torch
from torch import Tensor

from properties.faults.right.wide import wide

CHUNK = 8


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each chunk's answer counts as much as its share of the whole sum of exponentials."""
    b, h, n, d_k = Q.shape
    m = K.shape[-2]
    seen = torch.ones(b, h, n, m, dtype=torch.bool, device=Q.device) if mask is None else mask.expand(b, h, n, m)
    chunks = math.ceil(m / CHUNK)
    parts = [_part(Q, K, V, seen, slice(CHUNK * i, CHUNK * (i + 1)), math.sqrt(d_k)) for i in range(chunks)]
    if not parts:
        return V.new_zeros(b, h, n, V.shape[-1])
    log_sums = torch.stack([log_sum for _, log_sum in parts])
    largest = log_sums.amax(dim=0).clamp(min=torch.finfo(log_sums.dtype).min)  # a chunk without a key has log-sum −inf
    shares = torch.exp(log_sums - largest)
    total = shares.sum(dim=0)
    merged = sum(share * output for share, (output, _) in zip(shares, parts, strict=True))
    return (merged / total.masked_fill(total == 0, 1.0)).to(Q.dtype)


def _part(Q: Tensor, K: Tensor, V: Tensor, seen: Tensor, chunk: slice, root: float) -> tuple[Tensor, Tensor]:
    """The answer of one chunk of keys alone, and the logarithm of its sum of exponentials."""
    scores = (wide(Q) @ wide(K[..., chunk, :]).mT / root).masked_fill(~seen[..., chunk], -math.inf)
    log_sum = torch.logsumexp(scores, dim=-1, keepdim=True)
    weights = torch.exp(scores - log_sum.clamp(min=torch.finfo(log_sum.dtype).min))
    return weights @ wide(V[..., chunk, :]), log_sum
