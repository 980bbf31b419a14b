"""Output projection: from features to a score for every word of the dictionary, and from scores to probabilities.

    logits = X W + b        next word ~ softmax(logits)

Vaswani et al. (2017), section 3.4; tied to the target embedding W is tableᵀ.
"""

import numpy as np
from jaxtyping import Float64

from reference.multi_head import linear
from reference.softmax import softmax
from reference.trace import record


def output_projection(
    X: Float64[np.ndarray, "n d_model"], W: Float64[np.ndarray, "d_model vocab"], b: Float64[np.ndarray, " vocab"] | None = None
) -> Float64[np.ndarray, "n vocab"]:
    """A score (logit) for every word of the dictionary, in every row."""
    return record("logits", linear(X, W, b))


def next_token(logits: Float64[np.ndarray, "n vocab"]) -> Float64[np.ndarray, "n vocab"]:
    """Row i is the distribution of word i + 1."""
    return record("probabilities", softmax(logits))
