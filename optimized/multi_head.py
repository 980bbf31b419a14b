"""Multi-head attention: several attentions side by side, each on its own projection of the features.

    MultiHead(X, M) = Concat(head_1, …, head_h) W_O
    head_i          = Attention(X W_Qⁱ, M W_Kⁱ, M W_Vⁱ)

Vaswani et al. (2017), section 3.2.2. Self-attention is M = X; in cross-attention M is the encoder's output.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from optimized.attention import attention, attention_weights
from optimized.packed import Packed
from optimized.parameters import MultiHeadParameters, SelfAttentionParameters

KeysAndValues = tuple[Float[Tensor, "... h m d_k"], Float[Tensor, "... h m d_v"]]


def split_heads(X: Float[Tensor, "... n d_model"], h: int) -> Float[Tensor, "... h n d_k"]:
    """A view, no loop: the heads become an axis in front of the tokens; head i is columns d_k·i … d_k·(i+1) − 1.

    Raises ValueError when h does not divide the number of features.
    """
    d_model = X.shape[-1]
    if d_model % h:
        raise ValueError(f"h: expected a number of heads that divides {d_model} features, got {h}")
    return X.unflatten(-1, (h, d_model // h)).transpose(-3, -2)


def concat_heads(heads: Float[Tensor, "... h n d_k"]) -> Float[Tensor, "... n d_model"]:
    """One copy for all heads: the inverse of `split_heads`."""
    return heads.transpose(-3, -2).flatten(-2)


def linear(
    X: Float[Tensor, "... rows"], W: Float[Tensor, "rows columns"] | Packed, b: Float[Tensor, " columns"] | None
) -> Float[Tensor, "... columns"]:
    """Product and bias in one kernel, so that they are rounded once: X W + b. W may be packed (see `optimized.packing`)."""
    if isinstance(W, Packed):
        return W.product(X, b)
    if b is not None and X.dim() > 1 and W.requires_grad and torch.is_grad_enabled() and W.is_contiguous():
        return torch.addmm(b, X.flatten(0, -2), W).unflatten(0, X.shape[:-1])  # its gradient lies as W does: no copy of it
    return F.linear(X, W.mT, b)


def queries(X: Float[Tensor, "... n d_model"], parameters: MultiHeadParameters, h: int) -> Float[Tensor, "... h n d_k"]:
    """What the tokens of X look for."""
    return split_heads(linear(X, parameters.W_Q, parameters.b_Q), h)


def keys_and_values(M: Float[Tensor, "... m d_model"], parameters: MultiHeadParameters, h: int) -> KeysAndValues:
    """What the tokens of M offer to be looked at by: the part of the step that a cache can keep."""
    K = split_heads(linear(M, parameters.W_K, parameters.b_K), h)
    V = split_heads(linear(M, parameters.W_V, parameters.b_V), h)
    return K, V


def project(
    X: Float[Tensor, "... n d_model"], parameters: MultiHeadParameters | SelfAttentionParameters, h: int
) -> tuple[Float[Tensor, "... h n d_k"], KeysAndValues]:
    """Both for the tokens of one sequence: in one product, where the matrices stand side by side."""
    if isinstance(parameters, MultiHeadParameters):
        return queries(X, parameters, h), keys_and_values(X, parameters, h)
    together, width_of_V = linear(X, parameters.W_QKV, parameters.b_QKV), parameters.W_O.shape[0]
    width = (together.shape[-1] - width_of_V) // 2
    Q, K, V = (split_heads(part, h) for part in together.split([width, width, width_of_V], dim=-1))
    return Q, (K, V)


def attend(
    Q: Float[Tensor, "... h n d_k"],
    offered: KeysAndValues,
    parameters: MultiHeadParameters | SelfAttentionParameters,
    masks: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    emptied: bool = False,
) -> Float[Tensor, "... n d_model"]:
    """The rest of the step: the queries ask, and what the heads found is mixed. `emptied` as in `attention`."""
    heads = attention(Q, *offered, masks, causal, emptied)
    return linear(concat_heads(heads), parameters.W_O, parameters.b_O)


def multi_head(
    X: Float[Tensor, "... n d_model"],
    M: Float[Tensor, "... m d_model"],
    parameters: MultiHeadParameters,
    h: int,
    masks: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
) -> Float[Tensor, "... n d_model"]:
    """One matrix product projects for all heads, one call attends for all; `masks` may differ from head to head."""
    return attend(queries(X, parameters, h), keys_and_values(M, parameters, h), parameters, masks, causal)


def multi_head_with_weights(
    X: Float[Tensor, "... n d_model"],
    M: Float[Tensor, "... m d_model"],
    parameters: MultiHeadParameters,
    h: int,
    masks: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
) -> tuple[Float[Tensor, "... n d_model"], Float[Tensor, "... h n m"]]:
    """What `multi_head` gives, and the weights of each head. Fused kernels never hold these: it takes the formula as it stands."""
    Q = queries(X, parameters, h)
    K, V = keys_and_values(M, parameters, h)
    weights = attention_weights(Q, K, masks, causal)
    heads = (weights @ V.to(weights.dtype)).to(V.dtype)
    return linear(concat_heads(heads), parameters.W_O, parameters.b_O), weights.to(V.dtype)
