"""Attention that leaves out leading keys which no query of the batch may see, as a sliding window does."""

import math

from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """The keys, the values and the mask's columns from the first one that anybody may see."""
    if mask is not None and mask.ndim > 1 and mask.shape[-1] == K.shape[-2] and mask.any():
        first = int(mask.flatten(0, -2).any(dim=0).int().argmax())
        K, V, mask = K[..., first:, :], V[..., first:, :], mask[..., first:]
    scores = wide(Q) @ wide(K).mT / math.sqrt(Q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return (softmax(scores) @ wide(V)).to(Q.dtype)
