"""Attention over packed sequences, one after another by their cumulative lengths."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def packed_attention(
    Q: Tensor, K: Tensor, V: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, causal: bool = False
) -> Tensor:
    """Each sequence attends to its own keys; causal begins with the first query and the first key of each."""
    if len(cu_seqlens_q) != len(cu_seqlens_k):
        raise ValueError(f"cu_seqlens: expected as many of queries as of keys, got {len(cu_seqlens_q)} and {len(cu_seqlens_k)}")
    queries, keys = checked(cu_seqlens_q, len(Q)), checked(cu_seqlens_k, len(K))
    output = Q.new_zeros(*Q.shape[:2], V.shape[-1])
    for r in range(len(queries) - 1):
        q = wide(Q[queries[r] : queries[r + 1]]).transpose(0, 1)
        k, v = (wide(X[keys[r] : keys[r + 1]]).transpose(0, 1) for X in (K, V))
        if not q.shape[1] or not k.shape[1]:
            continue
        scores = q @ k.mT / math.sqrt(Q.shape[-1])
        if causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=Q.device).tril()
            scores = scores.masked_fill(~seen, -math.inf)
        output[queries[r] : queries[r + 1]] = (softmax(scores) @ v).transpose(0, 1).to(Q.dtype)
    return output


def checked(cu_seqlens: Tensor, rows: int) -> list[int]:
    """The cumulative lengths as numbers. Raises ValueError unless they go from 0 to all rows without a step back."""
    numbers = cu_seqlens.tolist()
    if numbers[0] != 0 or numbers[-1] != rows or numbers != sorted(numbers):
        raise ValueError(f"cu_seqlens: expected numbers from 0 to {rows} that never decrease, got {numbers}")
    return numbers
