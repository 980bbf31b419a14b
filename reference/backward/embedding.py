"""Embedding backward: every word of the sequence adds to the row of its token.

X_i = √d · table[t_i]   ⇒   dtable[t] = √d · Σ over all i with t_i = t of dX_i
"""

import numpy as np
from jaxtyping import Float64, Int


def embedding_backward(
    dX: Float64[np.ndarray, "n d_model"],
    tokens: Int[np.ndarray, " n"],
    table: Float64[np.ndarray, "vocab d_model"],
    scale: bool = True,
) -> Float64[np.ndarray, "vocab d_model"]:
    """The gradient of the table: a word that occurs twice gets both, and one that does not occur gets 0."""
    vocab, d_model = table.shape
    rows = np.stack([dX[tokens == token].sum(axis=0) for token in range(vocab)])
    return rows * np.sqrt(d_model) if scale else rows
