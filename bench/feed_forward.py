"""Feed-forward: two linear maps with a ReLU between, token by token."""

from bench.step import SOFT, TOKENS, Draw, Product, Sizes, Step, features, features_count, product
from properties.inputs.parameters import Nested


def products(s: Sizes) -> list[Product]:
    """In and out of the hidden units."""
    return [(s["b"] * s["n"], s["d_model"], s["d_ff"]), (s["b"] * s["n"], s["d_ff"], s["d_model"])]


def flops(s: Sizes) -> int:
    """Both maps."""
    return sum(product(*shape) for shape in products(s))


def weights_count(s: Sizes) -> int:
    """Two matrices and their biases."""
    return 2 * s["d_model"] * s["d_ff"] + s["d_model"] + s["d_ff"]


def weights(draw: Draw, s: Sizes) -> Nested:
    """Two matrices and their biases; the output is soft (see `SOFT`)."""
    d, d_ff = s["d_model"], s["d_ff"]
    first = {"W_1": draw.matrix(d, d_ff), "b_1": draw.normal(d_ff, scale=0.125)}
    return first | {"W_2": SOFT * draw.matrix(d_ff, d), "b_2": draw.normal(d, scale=0.125 * SOFT)}


STEP = Step(
    name="feed_forward",
    claim="F1",
    workloads={"feed_forward.8x64": TOKENS},
    flops=flops,
    products=products,
    elements=lambda s: 2 * features_count(s) + weights_count(s),  # X, the result, weights
    inputs=features,
    weights=weights,
)
