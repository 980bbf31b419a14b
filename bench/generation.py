"""Greedy generation of 64 tokens, for one sequence and for 32."""

from bench import decoder, encoder, transformer
from bench.step import PAPER, Sizes, Step, product

BOS = 0  # the end token is outside the vocabulary, so that every run generates the whole length


def flops(s: Sizes) -> int:
    """The encoder once; then for each token one row through the decoder, with a cache of keys and values."""
    d, b, length = s["d_model"], s["b"], s["length"]
    source_keys = 2 * product(b * s["m"], d, d)
    row = 6 * product(b, d, d) + 2 * product(b, d, s["d_ff"])  # Q K V O of self-attention, Q O of cross-attention
    attention = sum(4 * b * d * (i + s["m"]) for i in range(1, length + 1))
    stacks = transformer.encoder_flops(s) + s["layers"] * (source_keys + length * row + attention)
    return stacks + length * product(b, d, s["vocab"])


def elements(s: Sizes) -> int:
    """The encoder's weights once; the decoder's and the output matrix for every token: they outgrow the caches."""
    decoding = s["layers"] * decoder.weights_count(s) + (s["d_model"] + 1) * s["vocab"]
    return transformer.embedded({**s, "n": s["length"]}) + s["layers"] * encoder.weights_count(s) + s["length"] * decoding


STEP = Step(
    name="generation",
    claim="G1",
    workloads={
        "generation.1": {**PAPER, "b": 1, "m": 16, "length": 64},
        "generation.32": {**PAPER, "b": 32, "m": 64, "length": 64},
    },
    flops=flops,
    products=lambda s: transformer.products({**s, "n": 1}),
    elements=elements,
    tokens=lambda s: s["b"] * s["length"],
    inputs=lambda draw, s: (draw.tokens(s["b"], s["m"], vocab=s["vocab"]),),
    weights=lambda draw, s: {**transformer.weights(draw, s), "bos": BOS, "eos": s["vocab"], "length": s["length"]},
)
