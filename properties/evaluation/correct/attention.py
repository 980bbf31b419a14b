"""Scaled dot-product attention, one matrix after the other."""

import math

from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each query's average of the values; `mask` is True where a query may attend."""
    scale = 1 / math.sqrt(Q.shape[-1])
    scores = wide(Q) @ wide(K).mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = softmax(scores)
    output = weights @ wide(V)
    return output.to(Q.dtype)
