"""Multi-head attention: several attentions side by side, each on its own projection of the features.

    MultiHead(X, M) = Concat(head_1, …, head_h) W_O
    head_i          = Attention(X W_Qⁱ, M W_Kⁱ, M W_Vⁱ)

Vaswani et al. (2017), section 3.2.2. Self-attention is M = X; in cross-attention M is the encoder's output.
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.attention import attention
from reference.parameters import MultiHeadParameters
from reference.trace import inside, record


def split_heads(X: Float64[np.ndarray, "n d_model"], h: int) -> list[Float64[np.ndarray, "n d_k"]]:
    """Cut the features into h slices of equal width: head i gets columns d_k·i … d_k·(i+1) − 1.

    Raises ValueError when h does not divide the number of features.
    """
    d_model = X.shape[-1]
    if d_model % h:
        raise ValueError(f"h: expected a number of heads that divides {d_model} features, got {h}")
    d_k = d_model // h
    return [X[:, d_k * i : d_k * (i + 1)] for i in range(h)]


def concat_heads(heads: list[Float64[np.ndarray, "n d_k"]]) -> Float64[np.ndarray, "n d_model"]:
    """Put the heads side by side again: the inverse of `split_heads`."""
    return np.concatenate(heads, axis=-1)


def linear(
    X: Float64[np.ndarray, "n rows"], W: Float64[np.ndarray, "rows columns"], b: Float64[np.ndarray, " columns"] | None
) -> Float64[np.ndarray, "n columns"]:
    """X W + b, the bias b being added to every row."""
    return X @ W if b is None else X @ W + b


def multi_head(
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: MultiHeadParameters,
    h: int,
    masks: list[Bool[np.ndarray, "n m"] | None] | Bool[np.ndarray, "n m"] | None = None,
) -> Float64[np.ndarray, "n d_model"]:
    """Let every word of X look at the words of M, h times, and mix what the heads found.

    `masks` is one mask for all heads, or a list with one for each.
    """
    Q = record("Q", linear(X, parameters.W_Q, parameters.b_Q))
    K = record("K", linear(M, parameters.W_K, parameters.b_K))
    V = record("V", linear(M, parameters.W_V, parameters.b_V))
    head_masks = masks if isinstance(masks, list) else [masks] * h

    heads = []
    for i, (Q_i, K_i, V_i) in enumerate(zip(split_heads(Q, h), split_heads(K, h), split_heads(V, h), strict=True)):
        with inside(f"head.{i}"):
            heads.append(attention(Q_i, K_i, V_i, head_masks[i]))

    concatenated = record("concat", concat_heads(heads))
    return record("output", linear(concatenated, parameters.W_O, parameters.b_O))
