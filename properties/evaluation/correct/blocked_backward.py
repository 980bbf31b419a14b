"""Attention backward in blocks of keys and blocks of queries, from the output and the log-sums of the rows alone."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide

BLOCK = 32


def attention_backward(dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The forward once for the log-sums, then dK and dV block by block; dQ adds up what each block says."""
    scale = 1 / math.sqrt(Q.shape[-1])
    q, k, v, d_o = wide(Q), wide(K), wide(V), wide(dO)
    seen = torch.ones(*Q.shape[:-1], K.shape[-2], dtype=torch.bool) if mask is None else mask.expand(*Q.shape[:-1], K.shape[-2])
    scores = (q @ k.mT * scale).masked_fill(~seen, -math.inf)
    log_sums = torch.logsumexp(scores, dim=-1, keepdim=True)
    log_sums = torch.where(log_sums == -math.inf, 0.0, log_sums)
    output = torch.exp(scores - log_sums) @ v
    row_sums = (d_o * output).sum(dim=-1, keepdim=True)
    d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for first in range(0, k.shape[-2], BLOCK):
        keys = slice(first, first + BLOCK)
        for start in range(0, q.shape[-2], BLOCK):
            rows = slice(start, start + BLOCK)
            again = (q[..., rows, :] @ k[..., keys, :].mT * scale).masked_fill(~seen[..., rows, keys], -math.inf)
            weights = torch.exp(again - log_sums[..., rows, :])
            d_v[..., keys, :] += weights.mT @ d_o[..., rows, :]
            d_weights = d_o[..., rows, :] @ v[..., keys, :].mT
            d_scores = weights * (d_weights - row_sums[..., rows, :])
            d_k[..., keys, :] += d_scores.mT @ q[..., rows, :] * scale
            d_q[..., rows, :] += d_scores @ k[..., keys, :] * scale
    return d_q.to(Q.dtype), d_k.to(K.dtype), d_v.to(V.dtype)
