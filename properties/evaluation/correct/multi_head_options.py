"""Multi-head attention with a causal flag, and with its weights returned: one layer, asked in two ways."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.linear import linear
from properties.evaluation.correct.multi_head import concat_heads, split_heads
from properties.evaluation.correct.softmax import softmax
from properties.evaluation.correct.wide import wide


def multi_head(X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **parameters: Tensor) -> Tensor:
    """The tokens of X look at the tokens of M, h times side by side."""
    return _layer(X, M, mask, causal, h, False, **parameters)[0]


def multi_head_with_weights(
    X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **parameters: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, and the weights of each head."""
    return _layer(X, M, mask, causal, h, True, **parameters)


def _layer(
    X: Tensor,
    M: Tensor,
    mask: Tensor | None,
    causal: bool,
    h: int,
    need_weights: bool,
    *,
    W_Q: Tensor,
    W_K: Tensor,
    W_V: Tensor,
    W_O: Tensor,
    b_Q: Tensor | None = None,
    b_K: Tensor | None = None,
    b_V: Tensor | None = None,
    b_O: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    Q = split_heads(linear(X, W_Q, b_Q), h)
    K = split_heads(linear(M, W_K, b_K), h)
    V = split_heads(linear(M, W_V, b_V), h)
    n, m = Q.shape[2], K.shape[2]
    scores = wide(Q) @ wide(K).mT / math.sqrt(Q.shape[-1])
    seen = torch.ones(n, m, dtype=torch.bool, device=Q.device)
    if mask is not None:
        seen = seen & mask
    if causal:
        seen = seen & (torch.arange(m, device=Q.device) <= torch.arange(n, device=Q.device)[:, None])
    hidden = scores.masked_fill(~seen, -math.inf)
    weights = softmax(hidden)
    context = concat_heads((weights @ wide(V)).to(X.dtype))
    returned = weights.to(X.dtype) if need_weights else weights[..., :0, :0]
    return linear(context, W_O, b_O), returned
