"""Scaled dot-product attention: the only step where words exchange information.

    Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V

Vaswani et al. (2017), section 3.2.1, equation (1). One sequence, one head: heads are a loop in `multi_head`.
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.mask import apply_mask
from reference.softmax import softmax
from reference.trace import record


def attention(
    Q: Float64[np.ndarray, "n d_k"],
    K: Float64[np.ndarray, "m d_k"],
    V: Float64[np.ndarray, "m d_v"],
    mask: Bool[np.ndarray, "n m"] | None = None,
) -> Float64[np.ndarray, "n d_v"]:
    """Give every query the average of the values, weighted by how well their keys match it.

    `mask` is True where a query may look; None lets every query see every key. A query that may look nowhere receives zeros
    (see `reference.softmax`).
    """
    d_k = Q.shape[-1]
    products = record("products", Q @ K.T)
    scores = record("scores", products / np.sqrt(d_k))  # divided so that their variance does not grow with d_k
    masked_scores = record("masked_scores", apply_mask(scores, mask))
    weights = record("weights", softmax(masked_scores))
    return record("context", weights @ V)
