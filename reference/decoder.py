"""The decoder: N layers of masked self-attention, cross-attention and feed-forward, each with add & norm.

In cross-attention Q comes from the decoder, K and V from the encoder's final output M, in every layer.

Vaswani et al. (2017), sections 3.1 and 3.2.3 and figure 1, right. The article's text leaves out the norms after
cross-attention and feed-forward; its figure and the paper have them, and so has this file.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from reference.feed_forward import feed_forward
from reference.mask import both, causal_mask
from reference.multi_head import multi_head
from reference.parameters import PAPER, Architecture, DecoderLayerParameters, NormParameters
from reference.residual_norm import layer_norm, residual_norm
from reference.trace import inside, record


def decoder_layer(
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: DecoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    memory_mask: Bool[np.ndarray, "n m"] | None = None,
) -> Float64[np.ndarray, "n d_model"]:
    """Every word looks at itself and its past, then at the source, then thinks for itself. `mask` only restricts further."""
    past = both(causal_mask(len(X)), mask)

    look_back = inside("self_attention")(lambda X: multi_head(X, X, parameters.self_attention, architecture.h, past))
    look_at_source = inside("cross_attention")(lambda X: multi_head(X, M, parameters.cross_attention, architecture.h, memory_mask))
    think = inside("feed_forward")(lambda X: feed_forward(X, parameters.feed_forward, architecture.activation))
    X = residual_norm(X, look_back, parameters.norm_1, architecture.eps, architecture.norm, "add_norm_1")
    X = residual_norm(X, look_at_source, parameters.norm_2, architecture.eps, architecture.norm, "add_norm_2")
    return residual_norm(X, think, parameters.norm_3, architecture.eps, architecture.norm, "add_norm_3")


def decoder(
    X: Float64[np.ndarray, "n d_model"],
    M: Float64[np.ndarray, "m d_model"],
    layers: Sequence[DecoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    memory_mask: Bool[np.ndarray, "n m"] | None = None,
    final_norm: NormParameters | None = None,
) -> Float64[np.ndarray, "n d_model"]:
    """The layers one after another, each with the same M; then `final_norm`, if there is one."""
    with inside("decoder"):
        for i, layer in enumerate(layers):
            with inside(str(i)):
                X = decoder_layer(X, M, layer, architecture, mask, memory_mask)
        if final_norm is not None:
            X = record("final_norm", layer_norm(X, final_norm, architecture.eps))
        return X
