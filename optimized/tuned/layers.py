"""Stacks of layers in one call, where all of their matrices are in panels: the plain tier's steps, without the way between them.

Only what the paper's layers are, post-norm and ReLU, and no mask beside the causal rule; everything else goes step by step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optimized.packed import Panels
from optimized.parameters import Architecture, DecoderLayerParameters, EncoderLayerParameters, SelfAttentionParameters

KeysAndValues = tuple[Tensor, Tensor]


def fit(
    X: Tensor,
    layers: Sequence[EncoderLayerParameters | DecoderLayerParameters],
    architecture: Architecture,
    *masks: Tensor | None,
    memory: Sequence[KeysAndValues] = (),
) -> bool:
    """Whether layers with such parameters, under these masks, can be computed so."""
    return (
        all(mask is None for mask in masks)
        and (architecture.norm, architecture.activation) == ("post", "relu")
        and X.dim() == 3
        and X.numel() > 0
        and not (torch.is_grad_enabled() and X.requires_grad)  # refused by the first product, step by step
        and all(isinstance(layer.self_attention, SelfAttentionParameters) for layer in layers)
        and all(isinstance(W, Panels) and W.dtype is X.dtype for layer in layers for W in _matrices(layer))
        and len({layer.self_attention.W_O.shape for layer in layers}) == 1
        and all(X.shape[-1] == _matrices(layer)[0].shape[0] for layer in layers)  # others are refused, step by step
        and all(heads.W_O.shape[0] % architecture.h == 0 for layer in layers for heads in _heads(layer))
        and all(K.dim() == 4 and K.numel() > 0 and len(K) == len(X) for K, _ in memory)
    )


def encoder(
    X: Float[Tensor, "b n d_model"], layers: Sequence[EncoderLayerParameters], architecture: Architecture
) -> Float[Tensor, "b n d_model"]:
    """All layers, one after another."""
    h = architecture.h
    d_v = layers[0].self_attention.W_O.shape[0] // h
    return torch.ops.veriformer.encoder.default(X, *_weights(layers), h, d_v, architecture.eps)


def decoder(
    X: Float[Tensor, "b n d_model"],
    layers: Sequence[DecoderLayerParameters],
    own: Sequence[KeysAndValues],
    memory: Sequence[KeysAndValues],
    known: int,
    architecture: Architecture,
) -> Float[Tensor, "b n d_model"]:
    """All layers. What the tokens of X offer is written into `own` of each, behind the first `known` tokens."""
    flat = [[X for pair in kept for X in pair] for kept in (own, memory)]
    return torch.ops.veriformer.decoder.default(X, *_weights(layers), *flat, known, architecture.eps)


def room(X: Tensor, layer: Any, architecture: Architecture) -> KeysAndValues:
    """For the keys and values of all tokens of X."""
    own, h = layer.self_attention, architecture.h
    d_v = own.W_O.shape[0] // h
    d_k = (own.W_QKV.shape[1] // h - d_v) // 2
    b, n, _ = X.shape
    return X.new_empty(b, h, n, d_k), X.new_empty(b, h, n, d_v)


def _heads(layer: Any) -> list[Any]:
    return [layer.self_attention, layer.cross_attention] if hasattr(layer, "cross_attention") else [layer.self_attention]


def _matrices(layer: Any) -> list[Any]:
    across = [layer.cross_attention.W_Q, layer.cross_attention.W_O] if hasattr(layer, "cross_attention") else []
    return [layer.self_attention.W_QKV, layer.self_attention.W_O, *across, layer.feed_forward.W_1, layer.feed_forward.W_2]


def _weights(layers: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of all matrices, and those of all norms, in the order in which they are needed."""
    matrices: list[Tensor] = []
    norms: list[Tensor] = []
    for layer in layers:
        own, ff = layer.self_attention, layer.feed_forward
        matrices += *own.W_QKV.tensors(own.b_QKV), *own.W_O.tensors(own.b_O)
        norms += layer.norm_1.gain, layer.norm_1.bias, layer.norm_2.gain, layer.norm_2.bias
        if hasattr(layer, "cross_attention"):
            across: Any = layer.cross_attention
            matrices += *across.W_Q.tensors(across.b_Q), *across.W_O.tensors(across.b_O)
            norms += layer.norm_3.gain, layer.norm_3.bias
        matrices += *ff.W_1.tensors(ff.b_1), *ff.W_2.tensors(ff.b_2)
    return matrices, norms
