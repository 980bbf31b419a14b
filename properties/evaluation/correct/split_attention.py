"""Attention over chunks of keys, each with a maximum and a sum of its own, merged afterwards (split-K decoding)."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide

CHUNK = 8


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each chunk's answer counts as much as its share of the whole sum of exponentials."""
    b, h, n, _ = Q.shape
    m = K.shape[-2]
    seen = torch.ones(b, h, n, m, dtype=torch.bool, device=Q.device) if mask is None else mask.expand(b, h, n, m)
    parts = [_part(Q, K, V, seen, slice(start, start + CHUNK)) for start in range(0, m, CHUNK)]
    if not parts:
        return V.new_zeros(b, h, n, V.shape[-1])
    outputs, totals, maxima = (torch.stack(each) for each in zip(*parts, strict=True))
    largest = maxima.amax(dim=0).clamp(min=torch.finfo(maxima.dtype).min)  # a chunk without a key has the maximum −inf
    shares = torch.exp(maxima - largest)
    total = (shares * totals).sum(dim=0)
    merged = (shares * outputs).sum(dim=0)
    return (merged / total.masked_fill(total == 0, 1.0)).to(Q.dtype)


def _part(Q: Tensor, K: Tensor, V: Tensor, seen: Tensor, chunk: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Of one chunk of keys: the sum of weighted values, the sum of the weights, and the maximum that was subtracted."""
    scores = (wide(Q) @ wide(K[..., chunk, :]).mT / math.sqrt(Q.shape[-1])).masked_fill(~seen[..., chunk], -math.inf)
    maximum = scores.amax(dim=-1, keepdim=True)
    weights = torch.exp(scores - maximum.clamp(min=torch.finfo(scores.dtype).min))
    return weights @ wide(V[..., chunk, :]), weights.sum(dim=-1, keepdim=True), maximum
