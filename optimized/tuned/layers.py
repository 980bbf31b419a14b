"""Stacks of layers in one call, where all of their matrices are in panels: the plain tier's steps, without the way between them.

Only what the paper's layers are, post-norm and ReLU, and no mask beside the causal rule and padding behind each source; everything
else goes step by step.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optimized.packed import Panels
from optimized.parameters import Architecture, DecoderLayerParameters, EncoderLayerParameters, SelfAttentionParameters

KeysAndValues = tuple[Tensor, Tensor]
Products = list[tuple[Any, Tensor | None]]
ROWS = 512  # of all sequences that go through a stack at once
Layers = Sequence[EncoderLayerParameters] | Sequence[DecoderLayerParameters]


class Stack:
    """Layers in the order of their tensors; `lengths` says for which X they are one call."""

    def __init__(self, layers: Layers, architecture: Architecture) -> None:
        self.layers, self.architecture = layers, architecture
        self.in_panels = _in_panels(layers, architecture)
        if self.in_panels:
            self.matrices, self.norms = _tensors(_matrices(layer) for layer in layers), _norms(layers)
            (W_QKV, _), (W_O, _), *_ = _matrices(layers[0])
            self.d_model, self.dtype, self.d_v = W_QKV.shape[0], W_QKV.dtype, W_O.shape[0] // architecture.h

    def lengths(
        self,
        X: Tensor,
        padding: Tensor | None = None,
        *masks: Tensor | None,
        memory: Sequence[KeysAndValues] = (),
        M: Tensor | None = None,
    ) -> Int[Tensor, " b"] | None:
        """How many tokens of each source are attended to, where all layers are one call under these masks; None where they are not.

        A decoder needs M, the encoder's output, or the `memory` that each layer made of it.
        """
        fit = (
            self.in_panels
            and all(mask is None for mask in masks)
            and self._takes(X)
            and X.shape[-1] == self.d_model
            and all(K.dim() == 4 and K.numel() > 0 and len(K) == len(X) for K, _ in memory)
            and (M is None or (self._takes(M) and len(M) == len(X) and self._reads(M)))
        )
        return _lengths(len(X), memory[0][0].shape[-2] if memory else (X if M is None else M).shape[-2], padding) if fit else None

    def _takes(self, X: Tensor) -> bool:
        return X.dim() == 3 and X.numel() > 0 and X.dtype is self.dtype and not (X.requires_grad and torch.is_grad_enabled())

    def _reads(self, M: Tensor) -> bool:
        """Whether W_K and W_V of every layer are in panels too, for such M."""
        return all(
            isinstance(W, Panels) and W.dtype is self.dtype and W.shape[0] == M.shape[-1] and W.shape[1] % self.architecture.h == 0
            for layer in self.layers
            for W in (layer.cross_attention.W_K, layer.cross_attention.W_V)  # type: ignore[union-attr]
        )

    @cached_property
    def matrices_with_memory(self) -> list[Tensor]:
        """With those that read the encoder's output."""
        return _tensors(_matrices(layer, of_memory=True) for layer in self.layers)

    def encoder(self, X: Float[Tensor, "b n d_model"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b n d_model"]:
        """All layers, one after another."""
        tensors, sizes = (self.matrices, self.norms), (self.architecture.h, self.d_v, self.architecture.eps)
        return _in_parts(lambda X, lengths: torch.ops.veriformer.encoder.default(X, lengths, *tensors, *sizes), X, lengths)

    def decoder(
        self, X: Float[Tensor, "b n d_model"], M: Float[Tensor, "b m d_model"], lengths: Int[Tensor, " b"]
    ) -> Float[Tensor, "b n d_model"]:
        """All layers, each with the same M."""
        tensors, sizes = (self.matrices_with_memory, self.norms), (self.architecture.h, self.d_v, self.architecture.eps)
        return _in_parts(lambda *parts: torch.ops.veriformer.decoder.default(*parts, *tensors, *sizes), X, M, lengths)

    def continue_decoder(
        self,
        X: Float[Tensor, "b n d_model"],
        lengths: Int[Tensor, " b"],
        memory: Sequence[KeysAndValues],
        own: Sequence[KeysAndValues],
        known: int,
    ) -> Float[Tensor, "b n d_model"]:
        """All layers. What the tokens of X offer is written into `own` of each, behind the first `known`."""
        flat = [[X for pair in kept for X in pair] for kept in (own, memory)]
        tensors = self.matrices, self.norms
        return torch.ops.veriformer.continue_decoder.default(X, lengths, *tensors, *flat, known, self.architecture.eps)


def _lengths(b: int, m: int, padding: Tensor | None) -> Int[Tensor, " b"] | None:
    """How many of m tokens are real in each of b sequences; None unless they are the first, and at least one."""
    if padding is None:
        return torch.full((b,), m)
    if padding.shape != (b, 1, 1, m) or padding.device.type != "cpu":
        return None
    real = padding[:, 0, 0]
    lengths = real.sum(dim=-1)
    return lengths if torch.equal(real, torch.arange(m) < lengths[:, None].clamp(min=1)) else None


def _in_parts(call: Callable[..., Tensor], X: Tensor, *others: Tensor) -> Tensor:
    """`call` for some sequences at a time, so that what is between its steps stays in the caches."""
    size = max(1, ROWS // X.shape[1])
    if len(X) <= size:
        return call(X, *others)
    return torch.cat([call(*parts) for parts in zip(*(Y.split(size) for Y in (X, *others)), strict=True)])


class PackedLayers(tuple[Any, ...]):  # noqa: SLOT001 (it keeps something)
    """Layers of packed matrices, with the stack that they were last computed as: to collect it takes a while."""

    stack: Stack | None = None


def stack_of(layers: Layers, architecture: Architecture) -> Stack:
    """The layers as a stack, which packed layers keep."""
    kept = layers.stack if isinstance(layers, PackedLayers) else None
    if kept is None or kept.architecture != architecture:
        kept = Stack(layers, architecture)
        if isinstance(layers, PackedLayers):
            layers.stack = kept
    return kept


def _in_panels(layers: Layers, architecture: Architecture) -> bool:
    """Whether layers with such parameters are computed here."""
    if (architecture.norm, architecture.activation) != ("post", "relu") or not layers:
        return False
    if not all(isinstance(layer.self_attention, SelfAttentionParameters) for layer in layers):
        return False
    found = [_matrices(layer) for layer in layers]
    return (
        all(isinstance(W, Panels) for products in found for W, _ in products)
        and len({W.dtype for products in found for W, _ in products}) == 1
        and len({(W_QKV.shape[0], W_O.shape) for (W_QKV, _), (W_O, _), *_ in found}) == 1
        and all(heads.W_O.shape[0] % architecture.h == 0 for layer in layers for heads in _heads(layer))
    )


def _heads(layer: Any) -> list[Any]:
    return [layer.self_attention, layer.cross_attention] if hasattr(layer, "cross_attention") else [layer.self_attention]


def _matrices(layer: Any, *, of_memory: bool = False) -> Products:
    """Matrices and their biases in the order in which they are needed; `of_memory`: with those that read the encoder's output."""
    own, ff = layer.self_attention, layer.feed_forward
    found = [(own.W_QKV, own.b_QKV), (own.W_O, own.b_O)]
    if hasattr(layer, "cross_attention"):
        across: Any = layer.cross_attention
        found += [(across.W_K, across.b_K), (across.W_V, across.b_V)] if of_memory else []
        found += [(across.W_Q, across.b_Q), (across.W_O, across.b_O)]
    return [*found, (ff.W_1, ff.b_1), (ff.W_2, ff.b_2)]


def _tensors(products: Iterable[Products]) -> list[Tensor]:
    return [tensor for of_layer in products for W, b in of_layer for tensor in W.tensors(b)]


def _norms(layers: Layers) -> list[Tensor]:
    """Gain and bias of all norms, in the order in which they are needed."""
    norms = [norm for layer in layers for norm in (layer.norm_1, layer.norm_2, getattr(layer, "norm_3", None)) if norm is not None]
    return [tensor for norm in norms for tensor in (norm.gain, norm.bias)]
