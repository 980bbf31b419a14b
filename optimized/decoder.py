"""The decoder: N layers of masked self-attention, cross-attention and feed-forward, each with add & norm.

In cross-attention Q comes from the decoder, K and V from the encoder's final output M, in every layer.

Vaswani et al. (2017), sections 3.1 and 3.2.3 and figure 1, right.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from optimized.cache import Cache
from optimized.feed_forward import feed_forward
from optimized.mask import causal_mask
from optimized.multi_head import KeysAndValues, attend, keys_and_values, project, queries
from optimized.parameters import PAPER, Architecture, DecoderLayerParameters, NormParameters
from optimized.residual_norm import layer_norm, residual_norm
from optimized.tuned.layers import Stack, stack_of


def _layer(
    X: Tensor,
    past: Callable[[KeysAndValues], KeysAndValues],
    memory: KeysAndValues,
    parameters: DecoderLayerParameters,
    architecture: Architecture,
    mask: Tensor | None,
    memory_mask: Tensor | None,
    causal: bool,
    emptied: bool = False,
) -> Tensor:
    """The three sublayers, with a cache or without: `past` puts what the tokens of X offer behind what is known.

    `emptied` says that the hidden part of `memory` is zeros already, as a cache keeps it.
    """
    own, across, ff = parameters.self_attention, parameters.cross_attention, parameters.feed_forward

    def look_back(X: Tensor) -> Tensor:
        Q, offered = project(X, own, architecture.h)
        return attend(Q, past(offered), own, mask, causal)

    def look_at_source(X: Tensor) -> Tensor:
        Q = queries(X, across, architecture.h)
        return attend(Q, memory, across, memory_mask, emptied=emptied)

    def ffn(X: Tensor) -> Tensor:
        return feed_forward(X, ff, architecture.activation)

    X = residual_norm(X, look_back, parameters.norm_1, architecture.eps, architecture.norm)
    X = residual_norm(X, look_at_source, parameters.norm_2, architecture.eps, architecture.norm)
    return residual_norm(X, ffn, parameters.norm_3, architecture.eps, architecture.norm)


def decoder_layer(
    X: Float[Tensor, "... n d_model"],
    M: Float[Tensor, "... m d_model"],
    parameters: DecoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[Tensor, "..."] | None = None,
    memory_mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "... n d_model"]:
    """Whole batches; the causal rule is a flag to the fused kernel, not a matrix. `mask` only restricts further."""
    stack = Stack((parameters,), architecture)
    if (lengths := stack.lengths(X, memory_mask, mask, M=M)) is not None:
        return stack.decoder(X, M, lengths)
    memory = keys_and_values(M, parameters.cross_attention, architecture.h)
    return _layer(X, lambda offered: offered, memory, parameters, architecture, mask, memory_mask, causal=True)


def decoder(
    X: Float[Tensor, "... n d_model"],
    M: Float[Tensor, "... m d_model"],
    layers: Sequence[DecoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[Tensor, "..."] | None = None,
    memory_mask: Bool[Tensor, "..."] | None = None,
    final_norm: NormParameters | None = None,
) -> Float[Tensor, "... n d_model"]:
    """Whole batches through the layers, one after another, each with the same M; then `final_norm`, if there is one."""
    stack = stack_of(layers, architecture)
    if (lengths := stack.lengths(X, memory_mask, mask, M=M)) is not None:
        X = stack.decoder(X, M, lengths)
    else:
        memory = [keys_and_values(M, layer.cross_attention, architecture.h) for layer in layers]
        for layer, offered in zip(layers, memory, strict=True):
            X = _layer(X, lambda own: own, offered, layer, architecture, mask, memory_mask, causal=True)
    return X if final_norm is None else layer_norm(X, final_norm, architecture.eps)


def continue_decoder(
    X: Float[Tensor, "b n d_model"],
    cache: Cache,
    layers: Sequence[DecoderLayerParameters],
    architecture: Architecture = PAPER,
    final_norm: NormParameters | None = None,
) -> Float[Tensor, "b n d_model"]:
    """Only the n new tokens are computed; what they look back at comes from `cache`, which remembers them too afterwards."""
    n, known = X.shape[-2], cache.length
    memory_mask = cache.memory_mask if cache.padded else None
    stack = stack_of(layers, architecture)
    if (lengths := stack.lengths(X, memory_mask, memory=cache.memory)) is not None:
        cache.reserve(known + n)
        X = stack.continue_decoder(X, lengths, cache.memory, cache.own, known)
    else:
        mask = causal_mask(known + n, device=X.device)[known:] if known and n > 1 else None
        for i, layer in enumerate(layers):
            past, memory = partial(cache.keep, i), cache.memory[i]
            X = _layer(X, past, memory, layer, architecture, mask, memory_mask, causal=known == 0, emptied=True)
    cache.length += n
    return X if final_norm is None else layer_norm(X, final_norm, architecture.eps)
