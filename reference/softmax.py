"""Softmax: scores become probabilities.

    softmax(s)_j = exp(s_j) / Σ_k exp(s_k)

Vaswani et al. (2017), section 3.2.1, equation (1); also the last step of section 3.4.
"""

import numpy as np
from jaxtyping import Float64


def softmax(scores: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
    """Turn each row of scores into weights that are at least 0 and sum to 1.

    Only differences of scores matter, so the largest of a row is subtracted first and no exponential overflows. A score of
    −inf gets exactly 0. A row of nothing but −inf may look nowhere: its weights are all 0, by our declared convention (the
    formula alone would say 0/0).
    """
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    largest = np.where(largest == -np.inf, 0.0, largest)  # a blind row: exp(-inf - 0) is 0, where -inf - -inf would be NaN
    exponentials = np.exp(scores - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / np.where(total == 0, 1.0, total)
