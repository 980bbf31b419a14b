"""One decoder layer: self-attention, cross-attention and feed-forward, each with a residual norm."""

from bench import encoder, multi_head, residual_norm
from bench.step import TOKENS, Draw, Sizes, Step, features_and_memory, features_count
from properties.inputs.parameters import Nested


def flops(s: Sizes) -> int:
    """Those of an encoder layer, and cross-attention."""
    return encoder.flops(s) + multi_head.flops(s)


def weights_count(s: Sizes) -> int:
    """Three sublayers, three norms."""
    return encoder.weights_count(s) + multi_head.weights_count(s) + 2 * s["d_model"]


def weights(draw: Draw, s: Sizes) -> Nested:
    """Three sublayers, three norms."""
    d = s["d_model"]
    more = {"cross_attention": multi_head.weights, "norm_3": residual_norm.weights}
    return encoder.weights(draw, s) | {name: of(draw, d) for name, of in more.items()}


STEP = Step(
    name="decoder_layer",
    claim="L3",
    workloads={"decoder.8x64": TOKENS},
    flops=flops,
    products=encoder.products,
    elements=lambda s: 2 * features_count(s) + s["b"] * s["m"] * s["d_model"] + weights_count(s),  # X, the result, M, weights
    inputs=features_and_memory,
    weights=lambda draw, s: {"layer": weights(draw, s), "h": s["h"]},
)
