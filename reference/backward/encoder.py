"""The encoder backward: the layers in reverse order, and in each its two sublayers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from reference.backward.feed_forward import feed_forward_backward
from reference.backward.multi_head import multi_head_backward
from reference.backward.residual_norm import layer_norm_backward, residual_norm_backward
from reference.encoder import encoder_layer
from reference.feed_forward import feed_forward
from reference.multi_head import multi_head
from reference.parameters import (
    PAPER,
    Architecture,
    EncoderLayerParameters,
    FeedForwardParameters,
    MultiHeadParameters,
    NormParameters,
)
from reference.residual_norm import residual_norm
from reference.trace import inside


def encoder_layer_backward(
    dY: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    parameters: EncoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], EncoderLayerParameters]:
    """dX, and the gradients of all parameters of the layer."""
    eps, norm, h, activation = architecture.eps, architecture.norm, architecture.h, architecture.activation

    def attend(X: np.ndarray) -> np.ndarray:
        return multi_head(X, X, parameters.self_attention, h, mask)

    def think(X: np.ndarray) -> np.ndarray:
        return feed_forward(X, parameters.feed_forward, activation)

    def attend_backward(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, MultiHeadParameters]:
        dX, dM, of_heads = multi_head_backward(dY, X, X, parameters.self_attention, h, mask)
        return dX + dM, of_heads  # X asks and X answers

    def think_backward(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, FeedForwardParameters]:
        return feed_forward_backward(dY, X, parameters.feed_forward, activation)

    X_1 = residual_norm(X, attend, parameters.norm_1, eps, norm, "add_norm_1")
    with inside("add_norm_2"):
        dX_1, of_norm_2, of_thinking = residual_norm_backward(dY, X_1, think, think_backward, parameters.norm_2, eps, norm)
    with inside("add_norm_1"):
        dX, of_norm_1, of_heads = residual_norm_backward(dX_1, X, attend, attend_backward, parameters.norm_1, eps, norm)
    return dX, EncoderLayerParameters(of_heads, of_norm_1, of_thinking, of_norm_2)


def encoder_backward(
    dM: Float64[np.ndarray, "n d_model"],
    X: Float64[np.ndarray, "n d_model"],
    layers: Sequence[EncoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    final_norm: NormParameters | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], tuple[EncoderLayerParameters, ...], NormParameters | None]:
    """dX, and the gradients of each layer and of the norm after the last one, if there is one."""
    inputs = [X]  # of each layer, and what the last one wrote
    with inside("encoder"):
        for i, layer in enumerate(layers):
            with inside(str(i)):
                inputs.append(encoder_layer(inputs[-1], layer, architecture, mask))
        dX, of_final_norm = dM, None
        if final_norm is not None:
            dX, of_final_norm = layer_norm_backward(dM, inputs[-1], final_norm, architecture.eps)
        gradients: list[EncoderLayerParameters] = []
        for i, layer in reversed(list(enumerate(layers))):
            with inside(str(i)):
                dX, of_layer = encoder_layer_backward(dX, inputs[i], layer, architecture, mask)
                gradients.insert(0, of_layer)
    return dX, tuple(gradients), of_final_norm
