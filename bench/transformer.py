"""The whole forward pass: one sequence of the article's 16 tokens, and a batch of 32 sequences of 128."""

from typing import Any

from bench import decoder, encoder, output_projection
from bench.step import PAPER, Draw, Product, Sizes, Step
from properties.inputs.parameters import Nested


def encoder_flops(s: Sizes) -> int:
    """The encoder, on the m tokens of the source."""
    return s["layers"] * encoder.flops({**s, "n": s["m"]})


def flops(s: Sizes) -> int:
    """Both stacks and the output projection."""
    return encoder_flops(s) + s["layers"] * decoder.flops(s) + output_projection.flops(s)


def products(s: Sizes) -> list[Product]:
    """Of a layer, and the output projection."""
    return encoder.products(s) + output_projection.products(s)


def stacks_count(s: Sizes) -> int:
    """The weights of all layers of both sides."""
    return s["layers"] * (encoder.weights_count(s) + decoder.weights_count(s))


def embedded(s: Sizes) -> int:
    """The ids of source and target, and the rows they look up."""
    return s["b"] * (s["m"] + s["n"]) * (1 + s["d_model"])


def tokens(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Ids of source and target."""
    return tuple(draw.tokens(s["b"], length, vocab=s["vocab"]) for length in (s["m"], s["n"]))


def weights(draw: Draw, s: Sizes) -> Nested:
    """A whole model. Its output matrix is not tied: each token would be its own likeliest successor."""
    d, vocab = s["d_model"], s["vocab"]
    parameters = {
        "source_embedding": draw.matrix(d, vocab).T.copy(),
        "target_embedding": draw.matrix(d, vocab).T.copy(),
        "encoder": [encoder.weights(draw, s) for _ in range(s["layers"])],
        "decoder": [decoder.weights(draw, s) for _ in range(s["layers"])],
        "W_out": draw.matrix(d, vocab),
        "b_out": draw.normal(vocab, scale=0.125),
    }
    return {"parameters": parameters, "h": s["h"]}


STEP = Step(
    name="transformer",
    claim="T1",
    workloads={
        "transformer.article": {**PAPER, "b": 1, "n": 16, "m": 16},
        "transformer.batch": {**PAPER, "b": 32, "n": 128, "m": 128},
    },
    flops=flops,
    products=products,
    elements=lambda s: embedded(s) + stacks_count(s) + output_projection.elements(s),
    tokens=lambda s: s["b"] * s["n"],
    inputs=tokens,
    weights=weights,
)
