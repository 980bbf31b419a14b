"""The arguments of a workload's calls: normal numbers from a seed, the same for every peer, exact in every dtype.

Values change the speed (zeros flip fewer bits), so they are drawn, never constant: normal, rounded to 1/64 and cut at ±4, which
bfloat16 holds exactly; so peers of any dtype and the oracle are asked the very same question. Several variants of the inputs
share one set of weights, and timed calls go round them, so that an answer kept from the call before would be seen.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from properties.inputs.parameters import Call, Nested

Sizes = dict[str, int]
BOS = 0  # of generation; its end token is none of the vocabulary, so that every run writes the whole length
SOFT = 0.25  # sublayers add little to a token, or an untrained model would write one token for ever


class Draw:
    """One stream of random numbers, and the pieces of a Transformer drawn from it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Multiples of scale/64 within ±4 · scale; `scale` is a power of two."""
        drawn = self.rng.standard_normal(shape, dtype=np.float32)
        return np.clip(np.round(drawn * 64), -256, 256).astype(np.float64) * (scale / 64)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """A weight that neither lets its rows' features grow nor vanish: scale ≈ 1/√rows."""
        return self.normal(rows, columns, scale=2.0 ** -round(np.log2(rows) / 2))

    def words(self, *shape: int, vocab: int) -> np.ndarray:
        """Token ids, the start token not among them."""
        return self.rng.integers(1, vocab, shape)

    def norm(self, d: int) -> Nested:
        """Gain and bias; the gain is a multiple of 1/128, for bfloat16 has no finer numbers above 1."""
        gain = 1.0 + np.round(self.normal(d, scale=0.125) * 128) / 128
        return {"gain": gain, "bias": self.normal(d, scale=0.125)}

    def multi_head(self, d: int) -> Nested:
        """Four matrices and their biases; what comes out is soft (see `SOFT`)."""
        matrices = {name: self.matrix(d, d) for name in ("W_Q", "W_K", "W_V")}
        biases = {name: self.normal(d, scale=0.125) for name in ("b_Q", "b_K", "b_V")}
        return matrices | biases | {"W_O": SOFT * self.matrix(d, d), "b_O": self.normal(d, scale=0.125 * SOFT)}

    def feed_forward(self, d: int, d_ff: int) -> Nested:
        """Two matrices and their biases; what comes out is soft (see `SOFT`)."""
        return {
            "W_1": self.matrix(d, d_ff),
            "b_1": self.normal(d_ff, scale=0.125),
            "W_2": SOFT * self.matrix(d_ff, d),
            "b_2": self.normal(d, scale=0.125 * SOFT),
        }

    def encoder_layer(self, s: Sizes) -> Nested:
        """Two sublayers, two norms."""
        d = s["d_model"]
        sublayers = {"self_attention": self.multi_head(d), "feed_forward": self.feed_forward(d, s["d_ff"])}
        return sublayers | {"norm_1": self.norm(d), "norm_2": self.norm(d)}

    def decoder_layer(self, s: Sizes) -> Nested:
        """Three sublayers, three norms."""
        d = s["d_model"]
        return self.encoder_layer(s) | {"cross_attention": self.multi_head(d), "norm_3": self.norm(d)}

    def transformer(self, s: Sizes) -> Nested:
        """A whole model; its output matrix is not tied: each token would be its own likeliest successor."""
        d, vocab = s["d_model"], s["vocab"]
        return {
            "source_embedding": self.matrix(d, vocab).T.copy(),
            "target_embedding": self.matrix(d, vocab).T.copy(),
            "encoder": [self.encoder_layer(s) for _ in range(s["layers"])],
            "decoder": [self.decoder_layer(s) for _ in range(s["layers"])],
            "W_out": self.matrix(d, vocab),
            "b_out": self.normal(vocab, scale=0.125),
        }


# The inputs of each step, one variant after another ---------------------------------------------------------------------


def features(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Rows of features."""
    return (draw.normal(s["b"], s["n"], s["d_model"]),)


def features_and_memory(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Rows of features, and others to look at (not the same ones: one product for Q, K and V would be a short cut)."""
    return draw.normal(s["b"], s["n"], s["d_model"]), draw.normal(s["b"], s["m"], s["d_model"])


def features_twice(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """A sublayer's input and its output."""
    return *features(draw, s), *features(draw, s)


def queries_keys_values(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Q, K and V of every head."""
    return tuple(draw.normal(s["b"], s["h"], length, s["d_k"]) for length in (s["n"], s["m"], s["m"]))


def scores(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Scores of standard deviation 2."""
    return (draw.normal(s["b"], s["h"], s["n"], s["m"], scale=2.0),)


def target_words(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Token ids."""
    return (draw.words(s["b"], s["n"], vocab=s["vocab"]),)


def source_words(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Token ids of the source."""
    return (draw.words(s["b"], s["m"], vocab=s["vocab"]),)


def source_and_target_words(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """Token ids of both sides."""
    return *source_words(draw, s), *target_words(draw, s)


def places(_: Draw, s: Sizes) -> tuple[Any, ...]:
    """Sizes are all that a positional encoding takes."""
    return s["n"], s["d_model"]


def lengths(_: Draw, s: Sizes) -> tuple[Any, ...]:
    """Sizes are all that a mask takes."""
    return s["n"], s["m"]


# The weights and options of each step ---------------------------------------------------------------------------------


def none(_: Draw, _s: Sizes) -> Nested:
    """No weights."""
    return {}


def table(draw: Draw, s: Sizes) -> Nested:
    """Of an embedding."""
    return {"table": draw.matrix(s["d_model"], s["vocab"]).T.copy()}


def multi_head(draw: Draw, s: Sizes) -> Nested:
    """Of one multi-head attention."""
    return {"h": s["h"], **draw.multi_head(s["d_model"])}


def norm(draw: Draw, s: Sizes) -> Nested:
    """Of one LayerNorm."""
    return draw.norm(s["d_model"])


def feed_forward(draw: Draw, s: Sizes) -> Nested:
    """Of one feed-forward step."""
    return draw.feed_forward(s["d_model"], s["d_ff"])


def encoder_layer(draw: Draw, s: Sizes) -> Nested:
    """Of one encoder layer."""
    return {"layer": draw.encoder_layer(s), "h": s["h"]}


def decoder_layer(draw: Draw, s: Sizes) -> Nested:
    """Of one decoder layer."""
    return {"layer": draw.decoder_layer(s), "h": s["h"]}


def output_matrix(draw: Draw, s: Sizes) -> Nested:
    """Of an output projection."""
    return {"W": draw.matrix(s["d_model"], s["vocab"]), "b": draw.normal(s["vocab"], scale=0.125)}


def model(draw: Draw, s: Sizes) -> Nested:
    """Of the whole."""
    return {"parameters": draw.transformer(s), "h": s["h"]}


def writing_model(draw: Draw, s: Sizes) -> Nested:
    """Of the whole, and how it is to write."""
    return {**model(draw, s), "bos": BOS, "eos": s["vocab"], "length": s["length"]}


def variants(
    weights: Callable[[Draw, Sizes], Nested],
    inputs: Callable[[Draw, Sizes], tuple[Any, ...]],
    sizes: Sizes,
    seed: int,
    count: int,
) -> list[Call]:
    """`count` calls that differ in their inputs and share the very same arrays of weights."""
    shared = weights(Draw(seed), sizes)
    return [Call(inputs(Draw(seed + 1 + i), sizes), shared) for i in range(count)]
