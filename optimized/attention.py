"""Scaled dot-product attention: the only step where tokens exchange information.

    Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V

Vaswani et al. (2017), section 3.2.1, equation (1).

torch's fused kernels never hold the n × m scores in memory, but they *add* −∞ to hidden scores: where a hidden score has
overflowed, that is NaN. So they are used where that cannot happen: without a mask; with the causal rule as a flag, which the
CPU's kernel carries out by replacing; and with a mask that hides a key from all queries alike, for then the key itself can
be emptied. Any other mask takes the formula as it stands.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from optimized.mask import apply_mask, both, causal_mask
from optimized.softmax import softmax

FEW_SCORES = 2**16  # of a head


def attention(
    Q: Float[Tensor, "... n d_k"],
    K: Float[Tensor, "... m d_k"],
    V: Float[Tensor, "... m d_v"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    emptied: bool = False,
) -> Float[Tensor, "... n d_v"]:
    """All sequences and heads in one call, fused where the mask permits; `causal` adds the causal rule to `mask`.

    A query that is fully masked receives zeros. Finite numbers behind a mask, however large, change no bit of the result.
    `emptied` says that K and V come from `empty_hidden` with this very mask, so that it is not done again for every query.
    """
    if emptied and mask is not None:
        return _fused(Q, K, V, attn_mask=mask | ~mask.any(dim=-1, keepdim=True))
    empty = 0 in (*Q.shape, *K.shape, *V.shape)
    if causal and (empty or mask is not None or not _kernel_replaces_scores(Q, K, V)):
        return attention(Q, K, V, both(causal_mask(Q.shape[-2], K.shape[-2], Q.device), mask))
    if causal:
        return _fused(Q, K, V, is_causal=True)
    if mask is None and not empty:
        return _fused(Q, K, V)
    if mask is None or empty or (mask.dim() > 1 and mask.shape[-2] > 1):
        return _by_the_formula(Q, K, V, mask)
    rows = torch.atleast_2d(mask)
    return attention(Q, *empty_hidden(K, V, rows), rows, emptied=True)


def _fused(Q: Tensor, K: Tensor, V: Tensor, **options: Any) -> Tensor:
    """torch's kernel. Where a gradient is wanted of few narrow scores on a CPU it computes in float32, whose backward is faster."""
    narrow = Q.is_cpu and Q.dtype in (torch.bfloat16, torch.float16) and Q.shape[-2] * K.shape[-2] <= FEW_SCORES
    if narrow and torch.is_grad_enabled() and any(X.requires_grad for X in (Q, K, V)):
        return F.scaled_dot_product_attention(Q.float(), K.float(), V.float(), **options).to(Q.dtype)
    return F.scaled_dot_product_attention(Q, K, V, **options)


def _kernel_replaces_scores(Q: Tensor, K: Tensor, V: Tensor) -> bool:
    """Whether torch has a fused kernel for these that puts −∞ in place of later tokens' scores (others add it)."""
    dense = all(X.dim() == 4 and X.stride(-1) == 1 for X in (Q, K, V))
    return Q.device.type == "cpu" and dense and Q.shape[:2] == K.shape[:2] == V.shape[:2] and K.shape[-1] == V.shape[-1]


def empty_hidden(
    K: Float[Tensor, "... m d_k"], V: Float[Tensor, "... m d_v"], mask: Bool[Tensor, "... 1 m"]
) -> tuple[Float[Tensor, "... m d_k"], Float[Tensor, "... m d_v"]]:
    """For a mask that hides a key from all queries alike: hidden keys are zeros, and so are all values where every key is hidden.

    A fused kernel adds −∞ to the score of such a key, which is then finite; and a query that is fully masked may attend to all.
    """
    return K.masked_fill(~mask.mT, 0.0), V.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)


def attention_weights(
    Q: Float[Tensor, "... n d_k"], K: Float[Tensor, "... m d_k"], mask: Bool[Tensor, "..."] | None = None, causal: bool = False
) -> Float[Tensor, "... n m"]:
    """What the values are weighted with, step by step, in float32 where the dtype is narrower: no fused kernel returns them."""
    wide = torch.promote_types(Q.dtype, torch.float32)
    scores = Q.to(wide) @ K.to(wide).mT / math.sqrt(Q.shape[-1])
    seen = both(causal_mask(Q.shape[-2], K.shape[-2], Q.device), mask) if causal else mask
    return softmax(apply_mask(scores, seen))


def _by_the_formula(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None) -> Tensor:
    """Step by step, and rounded once."""
    weights = attention_weights(Q, K, mask)
    return (weights @ V.to(weights.dtype)).to(Q.dtype)
