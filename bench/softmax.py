"""Softmax: the attention weights of every head, from scores of standard deviation 2."""

from bench.step import TOKENS, Step

STEP = Step(
    name="softmax",
    claim="A5",
    workloads={"softmax.8x8x64": TOKENS},
    elements=lambda s: 2 * s["b"] * s["h"] * s["n"] * s["m"],  # scores in, weights out
    inputs=lambda draw, s: (draw.normal(s["b"], s["h"], s["n"], s["m"], scale=2.0),),
)
