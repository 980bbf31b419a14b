"""Embedding: each word becomes a row of features.

    X_t = √d_model · table[token_t]

Vaswani et al. (2017), section 3.4. The factor √d_model is the paper's; the article is silent on it, so it is an option.
"""

import numpy as np
from jaxtyping import Float64, Int

from reference.trace import record


def embedding(
    tokens: Int[np.ndarray, " n"],
    table: Float64[np.ndarray, "vocab d_model"],
    scale: bool = True,
) -> Float64[np.ndarray, "n d_model"]:
    """Look every word up in `table`: the same word gets the same row wherever it stands.

    Raises ValueError for a token outside 0 … vocab − 1 (a negative index would silently count from the end).
    """
    vocab, d_model = table.shape
    if np.any((tokens < 0) | (tokens >= vocab)):
        wrong = tokens[(tokens < 0) | (tokens >= vocab)][0]
        raise ValueError(f"tokens: expected ids from 0 to {vocab - 1} (the vocabulary has {vocab} tokens), got {wrong}")
    rows = table[tokens]
    return record("embedding", rows * np.sqrt(d_model) if scale else rows)
