"""One step of training: forward, loss, backward and Adam."""

from bench import transformer
from bench.step import PAPER, Sizes, Step


def elements(s: Sizes) -> int:
    """Every weight read forward; then weight, mean and mean square of Adam each read and written."""
    weights = transformer.stacks_count(s) + s["vocab"] * (3 * s["d_model"] + 1)  # two tables, the output matrix and its bias
    return transformer.embedded(s) + 7 * weights


STEP = Step(
    name="training",
    claim="T1",
    workloads={"training.16x64": {**PAPER, "b": 16, "n": 64, "m": 64}},
    flops=lambda s: 3 * transformer.flops(s),  # two products backward for each one forward
    products=transformer.products,
    elements=elements,
    tokens=lambda s: s["b"] * s["n"],
    inputs=transformer.tokens,
    weights=transformer.weights,
)
