"""Softmax backward: how a row of scores should have been, given how its weights should have been.

    P_j = exp(s_j) / Σ_k exp(s_k)         ∂P_k/∂s_j = P_k (δ_jk − P_j)
    ds_j = Σ_k dP_k · ∂P_k/∂s_j = P_j (dP_j − Σ_k P_k dP_k)

Each row of ds sums to 0, since a constant added to a row of scores changes nothing (claim A9).
"""

import numpy as np
from jaxtyping import Float64

from reference.softmax import softmax
from reference.trace import record


def softmax_backward(dP: Float64[np.ndarray, "n m"], scores: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
    """From the gradient of the weights to that of the scores. A score of −inf gets 0, and so does a row of nothing else."""
    P = record("weights", softmax(scores))
    return through_softmax(dP, P, (P * dP).sum(axis=-1, keepdims=True))


def through_softmax(
    dP: Float64[np.ndarray, "n m"], P: Float64[np.ndarray, "n m"], D: Float64[np.ndarray, "n 1"]
) -> Float64[np.ndarray, "n m"]:
    """The same from the weights P themselves, and the sums D_i = Σ_k P_ik dP_ik of their rows."""
    return P * (dP - D)


def log_sums(scores: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n 1"]:
    """L_i = log Σ_k exp(s_ik), from which a row's weights come back as exp(s_ij − L_i); 0 for a row of nothing but −inf."""
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    largest = np.where(largest == -np.inf, 0.0, largest)
    total = np.exp(scores - largest).sum(axis=-1, keepdims=True)
    return largest + np.log(np.where(total == 0, 1.0, total))
