"""Output projection: logits of the vocabulary."""

from bench.step import TOKENS, Product, Sizes, Step, features, features_count, product


def products(s: Sizes) -> list[Product]:
    """From features to the vocabulary."""
    return [(s["b"] * s["n"], s["d_model"], s["vocab"])]


def flops(s: Sizes) -> int:
    """The one product."""
    return product(*products(s)[0])


def elements(s: Sizes) -> int:
    """W and b, and the logits."""
    return (s["d_model"] + 1) * s["vocab"] + s["b"] * s["n"] * s["vocab"]


STEP = Step(
    name="output_projection",
    claim="O1",
    workloads={"output_projection.1x64": {**TOKENS, "b": 1}},
    flops=flops,
    products=products,
    elements=lambda s: features_count(s) + elements(s),  # and X
    inputs=features,
    weights=lambda draw, s: {"W": draw.matrix(s["d_model"], s["vocab"]), "b": draw.normal(s["vocab"], scale=0.125)},
)
