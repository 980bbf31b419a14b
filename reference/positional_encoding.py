"""Positional encoding: where a word stands, as sines and cosines of its position.

    PE[p, 2i]   = sin(p · ω_i)
    PE[p, 2i+1] = cos(p · ω_i)        ω_i = 10000^(−2i / d_model)

Vaswani et al. (2017), section 3.5.
"""

import numpy as np
from jaxtyping import Float, Float64

from reference.trace import record


def positional_encoding(positions: Float[np.ndarray, " n"], d_model: int) -> Float64[np.ndarray, "n d_model"]:
    """One row per position; `positions` are usually 0, 1, 2, …, but any real number has an encoding.

    Raises ValueError when d_model is odd: features come in pairs of a sine and a cosine.
    """
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model: expected an even number of features (a sine and a cosine each), got {d_model}")
    frequencies = 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    angles = positions[:, None] * frequencies[None, :]
    sines_and_cosines = np.stack([np.sin(angles), np.cos(angles)], axis=-1)  # (n, d_model/2, 2)
    return sines_and_cosines.reshape(len(positions), d_model)


def add_positions(X: Float64[np.ndarray, "n d_model"]) -> Float64[np.ndarray, "n d_model"]:
    """The input matrix: the embedding plus the encoding of the places 0 … n − 1, of the same shape."""
    n, d_model = X.shape
    PE = record("positional_encoding", positional_encoding(np.arange(n, dtype=np.float64, like=X), d_model))
    return record("input", X + PE)
