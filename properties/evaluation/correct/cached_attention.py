"""Attention over a static cache or a ring, sequence by sequence."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def cached_attention(Q: Tensor, K_cache: Tensor, V_cache: Tensor, *, lengths: Tensor, ring: bool = False) -> Tensor:
    """The n queries of a row are its last n positions; each sees what the cache still holds up to its own position."""
    b, h, n, d_k = Q.shape
    capacity = K_cache.shape[2]
    output = Q.new_zeros(b, h, n, V_cache.shape[-1])
    for r in range(b):
        length = int(lengths[r])
        if length < 0 or (length > capacity and not ring):
            raise ValueError(f"lengths: expected 0 to {capacity}, got {length}")
        if length == 0:
            continue
        held = torch.arange(max(length - capacity, 0), length, device=Q.device)
        slots = held % capacity
        k, v = wide(K_cache[r][:, slots]), wide(V_cache[r][:, slots])
        seen = held <= torch.arange(length - n, length, device=Q.device)[:, None]
        scores = (wide(Q[r]) @ k.mT / math.sqrt(d_k)).masked_fill(~seen, -math.inf)
        output[r] = (softmax(scores) @ v).to(Q.dtype)
    return output
