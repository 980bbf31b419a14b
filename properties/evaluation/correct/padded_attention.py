"""Attention for a kernel that wants heads of a width that is a multiple of 8: narrower ones are filled up with zeros."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Zeros add nothing to a product; the width that scales it is the one before the filling."""
    d_k, d_v = Q.shape[-1], V.shape[-1]
    q, k, v = (torch.nn.functional.pad(wide(x), (0, -x.shape[-1] % 8)) for x in (Q, K, V))
    scores = q @ k.mT / math.sqrt(d_k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    output = torch.zeros(*Q.shape[:-1], d_v, dtype=q.dtype, device=Q.device)
    output[:] = (softmax(scores) @ v)[..., :d_v]
    return output.to(Q.dtype)
