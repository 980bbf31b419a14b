"""Attention over paged keys and values, sequence by sequence."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def paged_attention(Q: Tensor, K_pages: Tensor, V_pages: Tensor, *, block_table: Tensor, lengths: Tensor) -> Tensor:
    """The n queries of a row are its last n positions; each sees what is at its own position and before."""
    b, h, n, d_k = Q.shape
    pages, page = K_pages.shape[:2]
    output = Q.new_zeros(b, h, n, V_pages.shape[-1])
    for r in range(b):
        length = int(lengths[r])
        if not 0 <= length <= block_table.shape[1] * page:
            raise ValueError(f"lengths: expected 0 to {block_table.shape[1] * page}, got {length}")
        count = -(-length // page)
        blocks = block_table[r, :count]
        if bool(((blocks < 0) | (blocks >= pages)).any()):
            raise ValueError(f"block_table: expected pages from 0 to {pages - 1}, got {blocks.tolist()}")
        k = wide(K_pages[blocks].flatten(0, 1)[:length]).transpose(0, 1)
        v = wide(V_pages[blocks].flatten(0, 1)[:length]).transpose(0, 1)
        if not k.shape[1]:
            continue
        seen = torch.ones(n, k.shape[1], dtype=torch.bool, device=Q.device).tril(k.shape[1] - n)
        scores = (wide(Q[r]) @ k.mT / math.sqrt(d_k)).masked_fill(~seen, -math.inf)
        output[r] = (softmax(scores) @ v).to(Q.dtype)
    return output
