"""Multi-head attention: one projection for all heads, then attention with a head axis."""

from torch import Tensor

from properties.evaluation.correct.attention import attention
from properties.evaluation.correct.linear import linear


def split_heads(X: Tensor, h: int) -> Tensor:
    """(b, n, d_model) → (b, h, n, d_k)."""
    b, n, d_model = X.shape
    return X.reshape(b, n, h, d_model // h).transpose(1, 2)


def concat_heads(heads: Tensor) -> Tensor:
    """(b, h, n, d_k) → (b, n, d_model)."""
    b, h, n, d_k = heads.shape
    return heads.transpose(1, 2).reshape(b, n, h * d_k)


def multi_head(
    X: Tensor,
    M: Tensor,
    mask: Tensor | None = None,
    *,
    h: int,
    W_Q: Tensor,
    W_K: Tensor,
    W_V: Tensor,
    W_O: Tensor,
    b_Q: Tensor | None = None,
    b_K: Tensor | None = None,
    b_V: Tensor | None = None,
    b_O: Tensor | None = None,
) -> Tensor:
    """The tokens of X look at the tokens of M, h times side by side."""
    Q = split_heads(linear(X, W_Q, b_Q), h)
    K = split_heads(linear(M, W_K, b_K), h)
    V = split_heads(linear(M, W_V, b_V), h)
    context = concat_heads(attention(Q, K, V, mask))
    return linear(context, W_O, b_O)
