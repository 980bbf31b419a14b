"""The encoder: N layers of self-attention and feed-forward, each with add & norm. The shape stays (…, n, d_model).

Vaswani et al. (2017), section 3.1 and figure 1, left.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from optimized.feed_forward import feed_forward
from optimized.multi_head import attend, project
from optimized.parameters import PAPER, Architecture, EncoderLayerParameters, NormParameters
from optimized.residual_norm import layer_norm, residual_norm
from optimized.tuned.layers import Stack, stack_of


def encoder_layer(
    X: Float[Tensor, "... n d_model"],
    parameters: EncoderLayerParameters,
    architecture: Architecture = PAPER,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "... n d_model"]:
    """Whole batches, under a mask of their own each: every token looks where it may, then thinks for itself."""
    stack = Stack((parameters,), architecture)
    if (lengths := stack.lengths(X, mask)) is not None:
        return stack.encoder(X, lengths)
    own, ff = parameters.self_attention, parameters.feed_forward

    def look_around(X: Tensor) -> Tensor:
        return attend(*project(X, own, architecture.h), own, mask)

    def ffn(X: Tensor) -> Tensor:
        return feed_forward(X, ff, architecture.activation)

    X = residual_norm(X, look_around, parameters.norm_1, architecture.eps, architecture.norm)
    return residual_norm(X, ffn, parameters.norm_2, architecture.eps, architecture.norm)


def encoder(
    X: Float[Tensor, "... n d_model"],
    layers: Sequence[EncoderLayerParameters],
    architecture: Architecture = PAPER,
    mask: Bool[Tensor, "..."] | None = None,
    final_norm: NormParameters | None = None,
) -> Float[Tensor, "... n d_model"]:
    """Whole batches through the layers, one after another; then `final_norm`, if there is one."""
    stack = stack_of(layers, architecture)
    if (lengths := stack.lengths(X, mask)) is not None:
        X = stack.encoder(X, lengths)
    else:
        for layer in layers:
            X = encoder_layer(X, layer, architecture, mask)
    return X if final_norm is None else layer_norm(X, final_norm, architecture.eps)
