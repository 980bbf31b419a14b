"""Attention that reads the keys block by block and keeps a running maximum and sum (online softmax)."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide

BLOCK = 16


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same numbers as attention in one go, without ever holding a whole row of scores."""
    q, k, v = wide(Q) / math.sqrt(Q.shape[-1]), wide(K), wide(V)
    m = k.shape[-2]
    seen = torch.ones(*Q.shape[:-1], m, dtype=torch.bool, device=Q.device) if mask is None else mask.expand(*Q.shape[:-1], m)
    largest = torch.full_like(q[..., :1], -math.inf)
    total = torch.zeros_like(largest)
    output = torch.zeros(*Q.shape[:-1], v.shape[-1], dtype=q.dtype, device=Q.device)
    for start in range(0, m, BLOCK):
        tile = _tile(k, start), _tile(v, start)
        inside = torch.arange(start, start + BLOCK, device=Q.device) < m
        attends = inside & _tile(seen.mT, start).mT
        scores = (q @ tile[0].mT).masked_fill(~attends, -math.inf)
        new = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        finite = new.clamp(min=torch.finfo(q.dtype).min)  # nothing seen yet: exp(−inf − finite) is 0
        weights, shrink = torch.exp(scores - finite), torch.exp(largest - finite)
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        output = output * shrink + weights @ tile[1]
        largest = new
    return (output / total.masked_fill(total == 0, 1.0)).to(Q.dtype)


def _tile(x: Tensor, start: int) -> Tensor:
    """Rows start … start + BLOCK − 1, filled up with zeros where there are none."""
    rows = x[..., start : start + BLOCK, :]
    filler = rows.new_zeros(*rows.shape[:-2], BLOCK - rows.shape[-2], rows.shape[-1])
    return torch.cat([rows, filler], dim=-2)
