"""Multi-head attention backward: through W_O, through each head by itself, through W_Q, W_K and W_V.

Y = concat(O_1, …, O_h) W_O + b_O  ⇒  dO_i = columns d_v·i … d_v·(i+1) − 1 of dY W_Oᵀ     dW_O = concat(O_i)ᵀ dY
Q = X W_Q + b_Q                    ⇒  dX = dQ W_Qᵀ     dW_Q = Xᵀ dQ     db_Q = Σ_rows dQ
K = M W_K + b_K,  V = M W_V + b_V  ⇒  dM = dK W_Kᵀ + dV W_Vᵀ            (M is used twice)
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.attention import attention
from reference.backward.attention import attention_backward
from reference.multi_head import concat_heads, linear, split_heads
from reference.parameters import MultiHeadParameters
from reference.trace import inside, record


def linear_backward(
    dY: Float64[np.ndarray, "n columns"],
    X: Float64[np.ndarray, "n rows"],
    W: Float64[np.ndarray, "rows columns"],
    b: Float64[np.ndarray, " columns"] | None,
) -> tuple[Float64[np.ndarray, "n rows"], Float64[np.ndarray, "rows columns"], Float64[np.ndarray, " columns"] | None]:
    """Y = X W + b: dX = dY Wᵀ, dW = Xᵀ dY, and db = Σ_rows dY, since b is used in every row; None where there is no b."""
    return dY @ W.T, X.T @ dY, None if b is None else dY.sum(axis=0)


def multi_head_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: MultiHeadParameters,
    h: int,
    masks: list[Bool[np.ndarray, "n m"] | None] | Bool[np.ndarray, "n m"] | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], Float64[np.ndarray, "m d_model"], MultiHeadParameters]:
    """dX, dM and the gradients of the parameters. In self-attention X and M are the same words: their gradients add up."""
    W = parameters
    Q = record("Q", linear(X, W.W_Q, W.b_Q))
    K = record("K", linear(M, W.W_K, W.b_K))
    V = record("V", linear(M, W.W_V, W.b_V))
    head_masks = masks if isinstance(masks, list) else [masks] * h
    heads = list(zip(split_heads(Q, h), split_heads(K, h), split_heads(V, h), head_masks, strict=True))
    concatenated = record("concat", concat_heads([attention(*head) for head in heads]))

    # back through Y = concat(O_1, …, O_h) W_O + b_O
    d_concatenated, dW_O, db_O = linear_backward(dY, concatenated, W.W_O, W.b_O)

    # back through O_i = Attention(Q_i, K_i, V_i)
    gradients = []
    for i, (dO_i, head) in enumerate(zip(split_heads(record("dconcat", d_concatenated), h), heads, strict=True)):
        with inside(f"head.{i}"):
            gradients.append(attention_backward(dO_i, *head))
    dQ, dK, dV = (concat_heads(list(slices)) for slices in zip(*gradients, strict=True))

    # back through Q = X W_Q + b_Q, K = M W_K + b_K, V = M W_V + b_V
    dX, dW_Q, db_Q = linear_backward(dQ, X, W.W_Q, W.b_Q)
    dM_of_K, dW_K, db_K = linear_backward(dK, M, W.W_K, W.b_K)
    dM_of_V, dW_V, db_V = linear_backward(dV, M, W.W_V, W.b_V)
    return dX, dM_of_K + dM_of_V, MultiHeadParameters(dW_Q, dW_K, dW_V, dW_O, db_Q, db_K, db_V, db_O)
