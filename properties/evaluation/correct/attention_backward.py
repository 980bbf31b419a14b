"""Attention backward, one matrix after the other."""

import math

from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention_backward(dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """dQ, dK and dV; the weights are computed again."""
    scale = 1 / math.sqrt(Q.shape[-1])
    scores = wide(Q) @ wide(K).mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = softmax(scores)
    d_weights = wide(dO) @ wide(V).mT
    row_sums = (weights * d_weights).sum(dim=-1, keepdim=True)
    d_scores = weights * (d_weights - row_sums)
    d_values = weights.mT @ wide(dO)
    d_keys = d_scores.mT @ wide(Q) * scale
    d_queries = d_scores @ wide(K) * scale
    return d_queries.to(Q.dtype), d_keys.to(K.dtype), d_values.to(V.dtype)
