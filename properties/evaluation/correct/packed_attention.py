"""Attention over a batch packed into one long sequence: sequences stand one after another and see their own tokens alone."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """One matrix product for all sequences; a block-diagonal mask keeps them apart."""
    b, h, n, d_k = Q.shape
    m, d_v = V.shape[-2:]
    q, k, v = (wide(x).transpose(0, 1).flatten(1, 2) for x in (Q, K, V))  # (h, b·n, d_k)
    seen = torch.ones(b, h, n, m, dtype=torch.bool, device=Q.device) if mask is None else mask.expand(b, h, n, m)
    isolated = torch.stack([torch.block_diag(*seen[:, i]) for i in range(h)]).bool()  # of no sequences it is made of floats
    scores = (q @ k.mT / math.sqrt(d_k)).masked_fill(~isolated, -math.inf)
    output = softmax(scores) @ v
    return output.reshape(h, b, n, d_v).transpose(0, 1).to(Q.dtype)
