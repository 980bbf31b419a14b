"""Log-sum-exp of attention's scores: what a kernel keeps of each row, so that parts of the keys can be merged later.

    L_i = log Σ_j exp(s_ij),  S = Q Kᵀ / √d_k

Beyond the article. Milakov and Gimelshein (2018), "Online normalizer calculation for softmax"; Dao et al. (2022),
"FlashAttention", section 3.1. Two parts of the keys with outputs O, O′ and L, L′ are merged to

    L″ = log(exp(L) + exp(L′)),  O″ = exp(L − L″) O + exp(L′ − L″) O′
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.mask import apply_mask
from reference.trace import record


def log_sum_exp(
    Q: Float64[np.ndarray, "n d_k"],
    K: Float64[np.ndarray, "m d_k"],
    mask: Bool[np.ndarray, "n m"] | None = None,
) -> Float64[np.ndarray, " n"]:
    """Give every query the natural logarithm of the sum over keys that `attention` divides by.

    The largest score of a row is subtracted first, as in softmax. A query that may look nowhere sums nothing, and log 0 = −∞:
    merged with any other part it adds nothing.
    """
    products = record("products", Q @ K.T)
    scores = record("scores", products / np.sqrt(Q.shape[-1]))
    masked_scores = record("masked_scores", apply_mask(scores, mask))
    largest = masked_scores.max(axis=-1, keepdims=True, initial=-np.inf)
    largest = np.where(largest == -np.inf, 0.0, largest)
    exponentials = record("exponentials", np.exp(record("shifted", masked_scores - largest)))
    total = record("total", exponentials.sum(axis=-1, keepdims=True))
    logarithm = largest + np.log(np.where(total == 0, 1.0, total))
    return np.where(total == 0, -np.inf, logarithm).reshape(Q.shape[0])
