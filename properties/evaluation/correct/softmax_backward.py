"""Softmax backward, from the scores."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide


def softmax_backward(dP: Tensor, scores: Tensor) -> Tensor:
    """The gradient of the scores; a row of nothing but −∞ gets zeros."""
    rows = wide(scores)
    largest = rows.amax(dim=-1, keepdim=True)
    exponentials = torch.exp(rows - torch.where(largest == -math.inf, 0.0, largest))
    total = exponentials.sum(dim=-1, keepdim=True)
    weights = exponentials / torch.where(total == 0, 1.0, total)
    row_sums = (weights * wide(dP)).sum(dim=-1, keepdim=True)
    d_scores = weights * (wide(dP) - row_sums)
    return d_scores.to(scores.dtype)
