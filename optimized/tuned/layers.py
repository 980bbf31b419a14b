"""A layer in one call, where all of its matrices are in panels: the plain tier's steps, without the way from one to the next.

Only what the paper's layers are, post-norm and ReLU, and no mask beside the causal rule; everything else goes step by step.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optimized.packed import Panels
from optimized.parameters import Architecture, DecoderLayerParameters, EncoderLayerParameters, FeedForwardParameters, NormParameters

Heads = Float[Tensor, "b h n width"]


def fits(
    X: Tensor,
    architecture: Architecture,
    matrices: tuple[Any, ...],
    *masks: Tensor | None,
    memory: tuple[Tensor, Tensor] | None = None,
) -> bool:
    """Whether a layer with these `matrices`, under these masks, can be computed so."""
    return (
        all(isinstance(W, Panels) for W in matrices)
        and (architecture.norm, architecture.activation) == ("post", "relu")
        and all(mask is None for mask in masks)
        and X.dim() == 3
        and X.numel() > 0
        and not (torch.is_grad_enabled() and X.requires_grad)  # refused by the first product, step by step
        and (memory is None or (memory[0].dim() == 4 and memory[0].numel() > 0 and len(memory[0]) == len(X)))
    )


def encoder_layer(
    X: Float[Tensor, "b n d_model"], Q: Heads, K: Heads, V: Heads, parameters: EncoderLayerParameters, eps: float
) -> Float[Tensor, "b n d_model"]:
    """What follows the projections of self-attention."""
    weights = [
        *_matrix(parameters.self_attention.W_O, parameters.self_attention.b_O),
        *_norm(parameters.norm_1),
        *_feed_forward(parameters.feed_forward),
        *_norm(parameters.norm_2),
    ]
    return torch.ops.veriformer.encoder_layer.default(X, Q, K, V, weights, eps)


def decoder_layer(
    X: Float[Tensor, "b n d_model"],
    Q: Heads,
    own: tuple[Heads, Heads],
    memory: tuple[Heads, Heads],
    parameters: DecoderLayerParameters,
    eps: float,
    *,
    causal: bool,
) -> Float[Tensor, "b n d_model"]:
    """What follows the projections of self-attention; `memory` are the keys and values of the encoder's output."""
    across = parameters.cross_attention
    weights = [
        *_matrix(parameters.self_attention.W_O, parameters.self_attention.b_O),
        *_norm(parameters.norm_1),
        *_matrix(across.W_Q, across.b_Q),
        *_matrix(across.W_O, across.b_O),
        *_norm(parameters.norm_2),
        *_feed_forward(parameters.feed_forward),
        *_norm(parameters.norm_3),
    ]
    return torch.ops.veriformer.decoder_layer.default(X, Q, *own, causal, *memory, weights, eps)


def _feed_forward(parameters: FeedForwardParameters) -> list[Tensor]:
    return [*_matrix(parameters.W_1, parameters.b_1), *_matrix(parameters.W_2, parameters.b_2)]


def _matrix(W: Any, b: Tensor | None) -> list[Tensor]:
    return [W.blocks, W.bias(b)]


def _norm(parameters: NormParameters) -> list[Tensor]:
    return [parameters.gain, parameters.bias]
