"""Multi-head attention with a causal flag, and with its weights returned: today's layers have both, the article has neither.

    s_i             = (X W_Qⁱ)(M W_Kⁱ)ᵀ / √d_k,   −∞ where query i may not look at key j
    weights_i       = softmax(s_i)
    MultiHead(X, M) = Concat(weights_1 M W_V¹, …, weights_h M W_Vʰ) W_O

A file of its own, so that `multi_head` stays the article's formula and reads beside it. The output of both is the same, bit for
bit.
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.attention_options import visible
from reference.mask import apply_mask
from reference.multi_head import concat_heads, linear, split_heads
from reference.parameters import MultiHeadParameters
from reference.softmax import softmax
from reference.trace import inside, record


def multi_head_with_weights(
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: MultiHeadParameters,
    h: int,
    masks: list[Bool[np.ndarray, "n m"] | None] | Bool[np.ndarray, "n m"] | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], Float64[np.ndarray, "h n m"]]:
    """What `multi_head` gives, and the weights of each head: how much of every value it took.

    A query that may look nowhere has weights of zero.
    """
    Q = record("Q", linear(X, parameters.W_Q, parameters.b_Q))
    K = record("K", linear(M, parameters.W_K, parameters.b_K))
    V = record("V", linear(M, parameters.W_V, parameters.b_V))
    head_masks = masks if isinstance(masks, list) else [masks] * h

    heads, weights = [], []
    for i, (Q_i, K_i, V_i) in enumerate(zip(split_heads(Q, h), split_heads(K, h), split_heads(V, h), strict=True)):
        with inside(f"head.{i}"):
            products = record("products", Q_i @ K_i.T)
            scores = record("scores", products / np.sqrt(Q_i.shape[-1]))
            masked_scores = record("masked_scores", apply_mask(scores, head_masks[i]))
            weights.append(record("weights", softmax(masked_scores)))
            heads.append(record("context", weights[i] @ V_i))

    concatenated = record("concat", concat_heads(heads))
    output = record("output", linear(concatenated, parameters.W_O, parameters.b_O))
    return output, np.stack(weights)


def causal_masks(
    n: int, m: int, masks: list[Bool[np.ndarray, "n m"] | None], offset: int = 0
) -> list[Bool[np.ndarray, "n m"] | None]:
    """The masks of all heads with what lies ahead hidden as well: query i sees no key behind the one at i + `offset`."""
    return [visible(n, m, mask, causal=True, offset=offset) for mask in masks]
