"""The encoder: N layers of self-attention and feed-forward, each with add & norm. The shape stays (n, d_model).

Vaswani et al. (2017), section 3.1 and figure 1, left.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from reference.feed_forward import feed_forward
from reference.multi_head import multi_head
from reference.parameters import PAPER, Architecture, EncoderLayerParameters, NormParameters
from reference.residual_norm import layer_norm, residual_norm
from reference.trace import inside, record


def encoder_layer(
    X: Float64[np.ndarray, "n d_model"],
    parameters: EncoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
) -> Float64[np.ndarray, "n d_model"]:
    """Every word looks at every word it may look at, then thinks for itself."""
    attend = inside("self_attention")(lambda X: multi_head(X, X, parameters.self_attention, architecture.h, mask))
    think = inside("feed_forward")(lambda X: feed_forward(X, parameters.feed_forward, architecture.activation))
    X = residual_norm(X, attend, parameters.norm_1, architecture.eps, architecture.norm, "add_norm_1")
    return residual_norm(X, think, parameters.norm_2, architecture.eps, architecture.norm, "add_norm_2")


def encoder(
    X: Float64[np.ndarray, "n d_model"],
    layers: Sequence[EncoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[np.ndarray, "n n"] | None = None,
    final_norm: NormParameters | None = None,
) -> Float64[np.ndarray, "n d_model"]:
    """The layers one after another, each reading what the one before wrote; then `final_norm`, if there is one."""
    with inside("encoder"):
        for i, layer in enumerate(layers):
            with inside(str(i)):
                X = encoder_layer(X, layer, architecture, mask)
        if final_norm is not None:
            X = record("final_norm", layer_norm(X, final_norm, architecture.eps))
        return X
