"""Scaled dot-product attention with the options that today's implementations take; the article has none of them.

    s = scale · Q Kᵀ                                one line for each option, in the order in which they are applied
    s ← c · tanh(s / c)
    s ← s + B − slope · |i + offset − j|
    s ← −∞ where query i may not look at key j
    P = softmax(s and the sink's score)             the sink's value is 0
    P ← P ∘ D / (1 − p)                             D: which weights are kept, given, not drawn
    output = P V

A file of its own, so that `attention` stays the article's formula and reads beside it. Without options both are the same, bit for
bit. One sequence, one head, as there: what is given for all heads (sinks, slopes) is one number here, and `key_head` says which
keys and values a head reads where several share them.
"""

import numpy as np
from jaxtyping import Bool, Float64

from reference.mask import apply_mask
from reference.softmax import softmax
from reference.trace import record

Window = tuple[int | None, int | None]


def attention_with_options(
    Q: Float64[np.ndarray, "n d_k"],
    K: Float64[np.ndarray, "m d_k"],
    V: Float64[np.ndarray, "m d_v"],
    mask: Bool[np.ndarray, "n m"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    bias: Float64[np.ndarray, "n m"] | None = None,
    window: Window | None = None,
    softcap: float | None = None,
    sink: float | None = None,
    slope: float | None = None,
    dropout_mask: Bool[np.ndarray, "n m"] | None = None,
    dropout_p: float = 0.0,
    offset: int = 0,
) -> Float64[np.ndarray, "n d_v"]:
    """Give every query the average of the values, with scores made as the options say.

    Query i stands at position i + `offset` among the keys: 0 where both sequences begin at the same word, m − n where they end
    at the same one. A query that may look nowhere receives zeros, with a sink or without.
    """
    n, m = len(Q), len(K)
    products = record("products", Q @ K.T)

    # scale:  s = scale · Q Kᵀ  (in place of 1/√d_k; the `scale` of PyTorch's scaled_dot_product_attention)
    scores = record("scores", products / np.sqrt(Q.shape[-1]) if scale is None else products * scale)

    # softcap:  s ← c · tanh(s / c)  (Gemma 2, arXiv:2408.00118, section 2)
    if softcap is not None:
        scores = record("capped_scores", softcap * np.tanh(scores / softcap))

    # bias:  s ← s + B  (Raffel et al. 2020, arXiv:1910.10683, section 2.1: "added to the corresponding logit")
    if bias is not None:
        scores = record("biased_scores", scores + bias)

    # ALiBi:  s ← s − slope · |i + offset − j|  (Press et al. 2022, arXiv:2108.12409, section 3)
    if slope is not None:
        positions = np.arange(offset, offset + n, dtype=np.float64, like=Q).reshape(n, 1)
        distances = abs(positions - np.arange(m, dtype=np.float64, like=Q).reshape(1, m))
        penalties = record("penalties", slope * distances)
        scores = record("sloped_scores", scores - penalties)

    # mask, causal, window:  s ← −∞ where any of them hides the key
    seen = visible(n, m, mask, causal=causal, window=window, offset=offset)
    masked_scores = record("masked_scores", apply_mask(scores, seen))

    # sink:  P_ij = exp(s_ij) / (exp(a) + Σ_k exp(s_ik))  (Xiao et al. 2023, arXiv:2309.17453; learned, gpt-oss, arXiv:2508.10925)
    if sink is None:
        weights = record("weights", softmax(masked_scores))
    else:
        with_sink = np.concatenate([masked_scores, np.broadcast_to(sink, (n, 1))], axis=-1)
        weights = record("weights", softmax(with_sink)[:, :-1])

    # dropout:  P ← P ∘ D / (1 − p)  (Srivastava et al. 2014, JMLR 15, section 10; on weights as in tensor2tensor's attention)
    if dropout_mask is not None:
        weights = record("kept_weights", np.where(dropout_mask, weights / (1 - dropout_p), 0.0))
    return record("context", weights @ V)


def visible(
    n: int, m: int, mask: Bool[np.ndarray, "n m"] | None, *, causal: bool = False, window: Window | None = None, offset: int = 0
) -> Bool[np.ndarray, "n m"]:
    """Which keys each query may look at: those that the mask, the order of words and the window all allow."""
    position, key = np.arange(n)[:, None] + offset, np.arange(m)[None, :]
    left, right = window or (None, None)
    seen = np.ones((n, m), dtype=bool) if mask is None else mask

    # causal:  j ≤ i + offset  (Vaswani et al. 2017, section 3.2.3)
    if causal:
        seen = seen & (key <= position)

    # window:  i + offset − left ≤ j ≤ i + offset + right  (Beltagy et al. 2020, arXiv:2004.05150, section 3.1)
    if left is not None:
        seen = seen & (key >= position - left)
    if right is not None:
        seen = seen & (key <= position + right)
    return seen


def key_head(head: int, h: int, g: int) -> int:
    """The one of g key heads that this one of h query heads reads: neighbours share one (Ainslie et al. 2023, arXiv:2305.13245).

    Raises ValueError where g does not divide h.
    """
    if g < 1 or h % g:
        raise ValueError(f"heads: expected a number of key heads that divides the {h} query heads, got {g}")
    return head * g // h  # ⌊i·g/h⌋
