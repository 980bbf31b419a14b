"""One encoder layer: self-attention and feed-forward, each with a residual norm."""

from bench import feed_forward, multi_head, residual_norm
from bench.step import TOKENS, Draw, Product, Sizes, Step, features, features_count
from properties.inputs.parameters import Nested


def flops(s: Sizes) -> int:
    """Both sublayers."""
    return multi_head.flops({**s, "m": s["n"]}) + feed_forward.flops(s)


def products(s: Sizes) -> list[Product]:
    """Of both sublayers."""
    return multi_head.products(s) + feed_forward.products(s)


def weights_count(s: Sizes) -> int:
    """Two sublayers, two norms."""
    return multi_head.weights_count(s) + feed_forward.weights_count(s) + 4 * s["d_model"]


def weights(draw: Draw, s: Sizes) -> Nested:
    """Two sublayers, two norms."""
    d = s["d_model"]
    sublayers = {"self_attention": multi_head.weights(draw, d), "feed_forward": feed_forward.weights(draw, s)}
    return sublayers | {"norm_1": residual_norm.weights(draw, d), "norm_2": residual_norm.weights(draw, d)}


STEP = Step(
    name="encoder_layer",
    claim="L1",
    workloads={"encoder.8x64": TOKENS},
    flops=flops,
    products=products,
    elements=lambda s: 2 * features_count(s) + weights_count(s),  # X, the result, weights
    inputs=features,
    weights=lambda draw, s: {"layer": weights(draw, s), "h": s["h"]},
)
