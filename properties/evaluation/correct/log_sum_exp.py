"""The log-sum-exp of attention's scores, block by block of keys, as kernels have it."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide

BLOCK = 32  # keys


def log_sum_exp(Q: Tensor, K: Tensor, mask: Tensor | None = None) -> Tensor:
    """Natural logarithm of the sum of exponentials over the keys, for each query; `mask` is True where it may attend."""
    scores = wide(Q) @ wide(K).mT / math.sqrt(Q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    total = scores.new_full(scores.shape[:-1], -math.inf)
    for part in scores.split(BLOCK, dim=-1):
        total = merged(total, torch.logsumexp(part, dim=-1))
    return total.to(Q.dtype)


def merged(first: Tensor, second: Tensor) -> Tensor:
    """The log-sum-exp of two parts of the keys from that of each; −∞ for two parts of nothing."""
    largest = torch.maximum(first, second)
    base = largest.clamp(min=torch.finfo(largest.dtype).min)
    return base + torch.log(torch.exp(first - base) + torch.exp(second - base))
