"""The decoder backward: the layers in reverse order, and in each its three sublayers. M is read by cross-attention alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from reference.backward.feed_forward import feed_forward_backward
from reference.backward.multi_head import multi_head_backward
from reference.backward.residual_norm import layer_norm_backward, residual_norm_backward
from reference.decoder import decoder_layer
from reference.feed_forward import feed_forward
from reference.mask import both, causal_mask
from reference.multi_head import multi_head
from reference.parameters import (
    PAPER,
    Architecture,
    DecoderLayerParameters,
    FeedForwardParameters,
    MultiHeadParameters,
    NormParameters,
)
from reference.residual_norm import residual_norm
from reference.trace import inside


def decoder_layer_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: DecoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    memory_mask: Bool[np.ndarray, "n m"] | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], Float64[np.ndarray, "m d_model"], DecoderLayerParameters]:
    """dX, dM, and the gradients of all parameters of the layer."""
    eps, norm, h, activation = architecture.eps, architecture.norm, architecture.h, architecture.activation
    past = both(causal_mask(len(X)), mask)

    def look_back(X: np.ndarray) -> np.ndarray:
        return multi_head(X, X, parameters.self_attention, h, past)

    def look_at_source(X: np.ndarray) -> np.ndarray:
        return multi_head(X, M, parameters.cross_attention, h, memory_mask)

    def think(X: np.ndarray) -> np.ndarray:
        return feed_forward(X, parameters.feed_forward, activation)

    def look_back_backward(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, MultiHeadParameters]:
        dX, dM, of_heads = multi_head_backward(dY, X, X, parameters.self_attention, h, past)
        return dX + dM, of_heads  # X asks and X answers

    def look_at_source_backward(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, MultiHeadParameters]]:
        dX, dM, of_heads = multi_head_backward(dY, X, M, parameters.cross_attention, h, memory_mask)
        return dX, (dM, of_heads)

    def think_backward(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, FeedForwardParameters]:
        return feed_forward_backward(dY, X, parameters.feed_forward, activation)

    norm_1, norm_2, norm_3 = parameters.norm_1, parameters.norm_2, parameters.norm_3
    X_1 = residual_norm(X, look_back, norm_1, eps, norm, "add_norm_1")
    X_2 = residual_norm(X_1, look_at_source, norm_2, eps, norm, "add_norm_2")
    with inside("add_norm_3"):
        dX_2, of_norm_3, of_thinking = residual_norm_backward(dY, X_2, think, think_backward, norm_3, eps, norm)
    with inside("add_norm_2"):
        dX_1, of_norm_2, (dM, of_cross) = residual_norm_backward(
            dX_2, X_1, look_at_source, look_at_source_backward, norm_2, eps, norm
        )
    with inside("add_norm_1"):
        dX, of_norm_1, of_heads = residual_norm_backward(dX_1, X, look_back, look_back_backward, norm_1, eps, norm)
    return dX, dM, DecoderLayerParameters(of_heads, of_norm_1, of_cross, of_norm_2, of_thinking, of_norm_3)


def decoder_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    layers: Sequence[DecoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    memory_mask: Bool[np.ndarray, "n m"] | None = None,
    final_norm: NormParameters | None = None,
) -> tuple[
    Float64[np.ndarray, "n d_model"],
    Float64[np.ndarray, "m d_model"],
    tuple[DecoderLayerParameters, ...],
    NormParameters | None,
]:
    """dX, dM, and the gradients of each layer and of the norm after the last one. Every layer reads M: their dM add up."""
    inputs = [X]  # of each layer, and what the last one wrote
    with inside("decoder"):
        for i, layer in enumerate(layers):
            with inside(str(i)):
                inputs.append(decoder_layer(inputs[-1], M, layer, architecture, mask, memory_mask))
        dX, of_final_norm = dY, None
        if final_norm is not None:
            dX, of_final_norm = layer_norm_backward(dY, inputs[-1], final_norm, architecture.eps)
        dM, gradients = 0.0 * M, list[DecoderLayerParameters]()
        for i, layer in reversed(list(enumerate(layers))):
            with inside(str(i)):
                dX, dM_of_layer, of_layer = decoder_layer_backward(dX, inputs[i], M, layer, architecture, mask, memory_mask)
                dM = dM + dM_of_layer
                gradients.insert(0, of_layer)
    return dX, dM, tuple(gradients), of_final_norm
