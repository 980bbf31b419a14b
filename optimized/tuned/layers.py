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
Layers = Sequence[EncoderLayerParameters] | Sequence[DecoderLayerParameters]


class Stack:
    """Layers in the order of their tensors; `fit` says for which X they are one call."""

    def __init__(self, layers: Layers, architecture: Architecture) -> None:
        self.layers, self.architecture = layers, architecture
        self.in_panels = _in_panels(layers, architecture)
        if self.in_panels:
            self.weights = _weights(layers)
            self.d_model, self.dtype = _matrices(layers[0])[0].shape[0], _matrices(layers[0])[0].dtype
            self.d_v = layers[0].self_attention.W_O.shape[0] // architecture.h

    def fit(self, X: Tensor, *masks: Tensor | None, memory: Sequence[KeysAndValues] = ()) -> bool:
        """Whether it can be computed so under these masks; all others are computed, or refused, step by step."""
        return (
            self.in_panels
            and all(mask is None for mask in masks)
            and X.dim() == 3
            and X.numel() > 0
            and X.dtype is self.dtype
            and X.shape[-1] == self.d_model
            and not (X.requires_grad and torch.is_grad_enabled())
            and all(K.dim() == 4 and K.numel() > 0 and len(K) == len(X) for K, _ in memory)
        )

    def encoder(self, X: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """All layers, one after another."""
        return torch.ops.veriformer.encoder.default(X, *self.weights, self.architecture.h, self.d_v, self.architecture.eps)

    def decoder(
        self,
        X: Float[Tensor, "b n d_model"],
        memory: Sequence[KeysAndValues],
        own: Sequence[KeysAndValues] | None = None,
        known: int = 0,
    ) -> Float[Tensor, "b n d_model"]:
        """All layers. What the tokens of X offer is written into `own` of each, if it is given, behind the first `known`."""
        own = [self._room(X, layer) for layer in self.layers] if own is None else own
        flat = [[X for pair in kept for X in pair] for kept in (own, memory)]
        return torch.ops.veriformer.decoder.default(X, *self.weights, *flat, known, self.architecture.eps)

    def _room(self, X: Tensor, layer: Any) -> KeysAndValues:
        """For the keys and values of all tokens of X."""
        h = self.architecture.h
        d_k = (layer.self_attention.W_QKV.shape[1] // h - self.d_v) // 2
        b, n, _ = X.shape
        return X.new_empty(b, h, n, d_k), X.new_empty(b, h, n, self.d_v)


def _in_panels(layers: Layers, architecture: Architecture) -> bool:
    """Whether layers with such parameters are computed here."""
    return (
        len(layers) > 0
        and (architecture.norm, architecture.activation) == ("post", "relu")
        and all(isinstance(layer.self_attention, SelfAttentionParameters) for layer in layers)
        and all(isinstance(W, Panels) for layer in layers for W in _matrices(layer))
        and len({W.dtype for layer in layers for W in _matrices(layer)}) == 1
        and len({layer.self_attention.W_O.shape for layer in layers}) == 1
        and len({_matrices(layer)[0].shape[0] for layer in layers}) == 1
        and all(heads.W_O.shape[0] % architecture.h == 0 for layer in layers for heads in _heads(layer))
    )


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
