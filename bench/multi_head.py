"""Multi-head attention to another sequence: four projections, and the heads between."""

from bench import attention
from bench.step import SOFT, TOKENS, Draw, Product, Sizes, Step, features_and_memory, features_count, product
from properties.inputs.parameters import Nested


def flops(s: Sizes) -> int:
    """Queries and outputs of n tokens, keys and values of m tokens, and the heads."""
    d = s["d_model"]
    projections = 2 * product(s["n"], d, d) + 2 * product(s["m"], d, d)
    return s["b"] * projections + attention.flops({**s, "d_k": d // s["h"]})


def products(s: Sizes) -> list[Product]:
    """One projection."""
    return [(s["b"] * s["n"], s["d_model"], s["d_model"])]


def weights_count(s: Sizes) -> int:
    """Four matrices and their biases."""
    return 4 * (s["d_model"] + 1) * s["d_model"]


def weights(draw: Draw, d: int) -> Nested:
    """Four matrices and their biases; the output is soft (see `SOFT`)."""
    matrices = {name: draw.matrix(d, d) for name in ("W_Q", "W_K", "W_V")}
    biases = {name: draw.normal(d, scale=0.125) for name in ("b_Q", "b_K", "b_V")}
    return matrices | biases | {"W_O": SOFT * draw.matrix(d, d), "b_O": draw.normal(d, scale=0.125 * SOFT)}


STEP = Step(
    name="multi_head",
    claim="H3",
    workloads={"multi_head.8x64": TOKENS},
    flops=flops,
    products=products,
    elements=lambda s: 2 * features_count(s) + s["b"] * s["m"] * s["d_model"] + weights_count(s),  # X, the result, M, weights
    inputs=features_and_memory,
    weights=lambda draw, s: {"h": s["h"], **weights(draw, s["d_model"])},
)
