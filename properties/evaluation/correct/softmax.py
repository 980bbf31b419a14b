"""Softmax over the last axis."""

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide


def softmax(scores: Tensor) -> Tensor:
    """Weights of at least 0 that sum to 1 in every row; a row of nothing but −inf gets zeros."""
    if scores.shape[-1] == 0:
        return scores
    s = wide(scores)
    largest = s.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(s.dtype).min)  # finite: −inf minus it is −inf, not NaN
    weights = torch.exp(s - largest)
    total = weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(s.dtype).tiny)  # a fully masked row: 0 / tiny is 0
    return (weights / total).to(scores.dtype)
