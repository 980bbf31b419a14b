"""Embedding: each token becomes a row of features.

    X_t = √d_model · table[token_t]

Vaswani et al. (2017), section 3.4.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def embedding(
    tokens: Int[Tensor, "... n"],
    table: Float[Tensor, "vocab d_model"],
    scale: bool = True,
) -> Float[Tensor, "... n d_model"]:
    """A whole batch is looked up at once: the same token gets the same row wherever it stands.

    Raises ValueError for a token outside 0 … vocab − 1.
    """
    vocab, d_model = table.shape
    try:
        if not tokens.is_cpu or torch.compiler.is_compiling():  # there nothing is refused, or too late
            _must_be_inside(tokens, vocab)
        rows = F.embedding(tokens, table)
    except IndexError:
        _must_be_inside(tokens, vocab)
        raise
    return rows * math.sqrt(d_model) if scale else rows


def _must_be_inside(tokens: Tensor, vocab: int) -> None:
    outside = (tokens < 0) | (tokens >= vocab)
    if outside.any():
        raise ValueError(
            f"tokens: expected ids from 0 to {vocab - 1} (the vocabulary has {vocab} tokens), got {tokens[outside][0]}"
        )
