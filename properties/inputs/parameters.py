"""Weights and whole calls for properties of the steps that have parameters: heads, norms, layers, models.

An array of weights is one drawn integer: 0 is zeros, 1 is ones on the diagonal, anything else seeds few-bit numbers. So every
parameter is random (gains and biases too: ones and zeros would hide a swapped or forgotten one), every number is the same in
bfloat16 as in float64, and a counterexample shrinks to weights that read as "nothing" and "unchanged". All sizes are small:
a budget costs a score of oracle runs.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from properties.implementations.domain import drawn_inside

Nested = dict[str, Any]

NORMS = ("post", "pre")
DEFAULTS = {"norm": "post", "activation": "relu", "eps": 1e-5}  # of `properties.steps.CHOICES`
ACTIVATIONS = ("relu", "gelu", "gelu_tanh")
BIASES = ("b_Q", "b_K", "b_V", "b_O")


class Call(NamedTuple):
    """The arguments of one call of a step: `impl.encoder(*call.args, **call.kwargs)`."""

    args: tuple[Any, ...]
    kwargs: Nested

    def but(self, **kwargs: Any) -> "Call":
        """The same call with other keyword arguments."""
        return Call(self.args, {**self.kwargs, **kwargs})

    def on(self, *args: Any) -> "Call":
        """The same call with other leading arguments."""
        return Call((*args, *self.args[len(args) :]), self.kwargs)


class Sizes(NamedTuple):
    """The lengths of all axes of one case."""

    b: int
    n: int
    m: int
    h: int
    d_model: int
    d_ff: int


def huge(dtype: str) -> float:
    """A number that would show wherever it leaked, yet whose products no correct float16 computation overflows with."""
    return 2.0**6 if dtype == "float16" else 2.0**40


def dyadic(seed: int, shape: tuple[int, ...], magnitude: float = 1.0) -> np.ndarray:
    """Multiples of magnitude/64 from −magnitude to magnitude; seed 0 is zeros, seed 1 ones on the diagonal."""
    if seed < 2:
        plain = np.eye(*shape) if len(shape) == 2 else np.ones(shape)
        return seed * plain
    return np.random.default_rng(seed).integers(-64, 65, shape) / 64 * magnitude


SEEDS = st.integers(0, 2**16)

# What is drawn again and again is made once (`cache`): Hypothesis examines every new strategy before it draws from it.


@cache
def weights(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """A matrix or a bias, of about the size Xavier's rule gives: activations neither grow nor vanish."""
    magnitude = 1.0 if math.prod(shape) == shape[-1] else 2.0 ** (1 - shape[0].bit_length() // 2)
    return SEEDS.map(lambda seed: dyadic(seed, shape, magnitude))


@cache
def features(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """Rows for a layer to read, from −2 to 2."""
    return SEEDS.map(lambda seed: dyadic(seed, shape, 2.0))


@cache
def gains(d_model: int) -> st.SearchStrategy[np.ndarray]:
    """Gains from 1/2 to 3/2; they shrink to ones."""
    return SEEDS.map(lambda seed: 1.0 + (dyadic(seed, (d_model,), 0.5) if seed else np.zeros(d_model)))


@cache
def widths(least: int, most: int) -> st.SearchStrategy[int]:
    """How many features rows have; within a domain, so many as are taken: a norm's mean is over all of them."""
    return st.integers(least, most).map(lambda d: drawn_inside(d_model=d)["d_model"])


@cache
@st.composite
def sizes(draw: st.DrawFn, *, even: bool = False, most_tokens: int = 5, most_sequences: int = 3) -> Sizes:
    """Small axes; `even` features are what a positional encoding needs. Coincidences (n = m = h …) are drawn too."""
    h = draw(st.integers(1, 3))
    d_k = draw(st.sampled_from((2, 4) if h < 3 else (2,))) if even else draw(st.integers(2 if h == 1 else 1, 3))
    tokens = st.integers(1, most_tokens)
    b, n, m, d_ff = draw(st.integers(1, most_sequences)), draw(tokens), draw(tokens), draw(st.integers(1, 7))
    d_model = drawn_inside(d_model=h * d_k)["d_model"]
    return Sizes(b, n, m, math.gcd(h, d_model), d_model, d_ff)


# One step's parameters ------------------------------------------------------------------------------------------------


@cache
@st.composite
def multi_head_weights(draw: st.DrawFn, d_model: int) -> Nested:
    """W_Q … b_O; each bias may be None."""
    matrices = {name: draw(weights(d_model, d_model)) for name in ("W_Q", "W_K", "W_V", "W_O")}
    given = draw(st.sampled_from(((True,) * 4, (False,) * 4, (True, True, True, False), (False, False, False, True))))
    biases = {name: draw(weights(d_model)) if is_given else None for name, is_given in zip(BIASES, given, strict=True)}
    return matrices | biases


@cache
@st.composite
def norm_weights(draw: st.DrawFn, d_model: int) -> Nested:
    """Gain and bias of a LayerNorm."""
    return {"gain": draw(gains(d_model)), "bias": draw(weights(d_model))}


@cache
@st.composite
def feed_forward_weights(draw: st.DrawFn, d_model: int, d_ff: int) -> Nested:
    """W_1, b_1, W_2, b_2."""
    return {
        "W_1": draw(weights(d_model, d_ff)),
        "b_1": draw(weights(d_ff)),
        "W_2": draw(weights(d_ff, d_model)),
        "b_2": draw(weights(d_model)),
    }


@cache
@st.composite
def encoder_layer_weights(draw: st.DrawFn, d_model: int, d_ff: int) -> Nested:
    """One encoder layer."""
    return {
        "self_attention": draw(multi_head_weights(d_model)),
        "norm_1": draw(norm_weights(d_model)),
        "feed_forward": draw(feed_forward_weights(d_model, d_ff)),
        "norm_2": draw(norm_weights(d_model)),
    }


@cache
@st.composite
def decoder_layer_weights(draw: st.DrawFn, d_model: int, d_ff: int) -> Nested:
    """One decoder layer."""
    return {
        "self_attention": draw(multi_head_weights(d_model)),
        "norm_1": draw(norm_weights(d_model)),
        "cross_attention": draw(multi_head_weights(d_model)),
        "norm_2": draw(norm_weights(d_model)),
        "feed_forward": draw(feed_forward_weights(d_model, d_ff)),
        "norm_3": draw(norm_weights(d_model)),
    }


@cache
@st.composite
def choices(draw: st.DrawFn, h: int) -> Nested:
    """What a Transformer leaves open: where the norm stands, which activation, which eps. A default may be said or not."""
    chosen = {
        "norm": draw(st.sampled_from(NORMS)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "eps": draw(st.sampled_from((1e-5, 1e-3))),
    }
    said = draw(st.booleans())
    return {"h": h, **{name: choice for name, choice in chosen.items() if said or choice != DEFAULTS[name]}}


# Masks ----------------------------------------------------------------------------------------------------------------


@cache
@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """May-look masks in which every row may attend somewhere (what a fully masked row gets is a convention, see `conventions`)."""
    seed = draw(SEEDS)
    if seed == 0:
        return np.ones(shape, dtype=bool)
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < draw(st.sampled_from((0.5, 0.0, 0.9)))
    np.put_along_axis(mask, rng.integers(0, shape[-1], (*shape[:-1], 1)), True, axis=-1)
    return mask


@cache
def optional_masks(*shapes: tuple[int, ...]) -> st.SearchStrategy[np.ndarray | None]:
    """No mask, or one of any of these shapes."""
    return st.none() | st.sampled_from(shapes).flatmap(masks)


@cache
@st.composite
def past_masks(draw: st.DrawFn, b: int, n: int) -> np.ndarray | None:
    """Masks that restrict a causal one further, and still let every token see itself or the first token."""
    shape = draw(st.sampled_from((None, (n, n), (b, 1, n, n), (b, 1, 1, n))))
    if shape is None:
        return None
    mask = draw(masks(shape))
    mask[..., 0] |= shape[-2] == 1
    return mask if shape[-2] == 1 else mask | np.eye(n, dtype=bool)


@cache
@st.composite
def real_tokens(draw: st.DrawFn, b: int, n: int) -> np.ndarray | None:
    """Which tokens are tokens and which only fill up the length; the first always is one."""
    if draw(st.booleans()):
        return None
    real = draw(masks((b, n)))
    real[:, 0] = True
    return real


# Whole calls ----------------------------------------------------------------------------------------------------------


@st.composite
def multi_head_calls(draw: st.DrawFn, *, masked: bool = True) -> Call:
    """X looks at M, under no mask or one that may differ per row and head."""
    b, n, m, h, d_model, _ = draw(sizes())
    mask = draw(optional_masks((n, m), (b, 1, 1, m), (b, 1, n, m), (b, h, n, m))) if masked else None
    X, M = draw(features(b, n, d_model)), draw(features(b, m, d_model))
    return Call((X, M, mask), {"h": h, **draw(multi_head_weights(d_model))})


@st.composite
def feed_forward_calls(draw: st.DrawFn) -> Call:
    """Rows up to ±8, so that every activation is seen on both sides of its bend and in its tails."""
    b, n, _, _, d_model, d_ff = draw(sizes())
    X = draw(features(b, n, d_model)) * draw(st.sampled_from((1.0, 4.0)))
    activation = draw(st.sampled_from(ACTIVATIONS))
    return Call((X,), {**draw(feed_forward_weights(d_model, d_ff)), "activation": activation})


@st.composite
def encoder_layer_calls(draw: st.DrawFn, *, masked: bool = True) -> Call:
    """One encoder layer and the tokens it reads."""
    b, n, _, h, d_model, d_ff = draw(sizes())
    mask = draw(optional_masks((n, n), (b, 1, 1, n), (b, 1, n, n))) if masked else None
    X = draw(features(b, n, d_model))
    return Call((X, mask), {"layer": draw(encoder_layer_weights(d_model, d_ff)), **draw(choices(h))})


@st.composite
def encoder_calls(draw: st.DrawFn, *, padded: bool = False) -> Call:
    """A stack of one to three encoder layers, with or without a final norm; if `padded`, some tokens only fill up the length."""
    b, n, _, h, d_model, d_ff = draw(sizes(most_tokens=4, most_sequences=2))
    mask = draw(masks((b, 1, 1, n)) if padded else optional_masks((n, n), (b, 1, n, n)))
    layers = draw(st.lists(encoder_layer_weights(d_model, d_ff), min_size=1, max_size=3))
    final_norm = draw(st.none() | norm_weights(d_model))
    return Call((draw(features(b, n, d_model)), mask), {"layers": layers, "final_norm": final_norm, **draw(choices(h))})


@st.composite
def decoder_layer_calls(draw: st.DrawFn) -> Call:
    """One decoder layer, the tokens it writes and the memory it reads."""
    b, n, m, h, d_model, d_ff = draw(sizes())
    mask, memory_mask = draw(past_masks(b, n)), draw(optional_masks((n, m), (b, 1, 1, m), (b, 1, n, m)))
    X, M = draw(features(b, n, d_model)), draw(features(b, m, d_model))
    return Call((X, M, mask, memory_mask), {"layer": draw(decoder_layer_weights(d_model, d_ff)), **draw(choices(h))})


@st.composite
def decoder_calls(draw: st.DrawFn) -> Call:
    """A stack of one to three decoder layers, with or without a final norm."""
    b, n, m, h, d_model, d_ff = draw(sizes(most_tokens=4, most_sequences=2))
    mask, memory_mask = draw(past_masks(b, n)), draw(optional_masks((b, 1, 1, m), (b, 1, n, m)))
    layers = draw(st.lists(decoder_layer_weights(d_model, d_ff), min_size=1, max_size=3))
    final_norm = draw(st.none() | norm_weights(d_model))
    X, M = draw(features(b, n, d_model)), draw(features(b, m, d_model))
    return Call((X, M, mask, memory_mask), {"layers": layers, "final_norm": final_norm, **draw(choices(h))})


@st.composite
def models(
    draw: st.DrawFn, d_model: int, d_ff: int, *, source_vocab: int, vocab: int, tied: bool | None = None, most_layers: int = 1
) -> Nested:
    """Every learned number of a small Transformer: so many layers a side, tied or not, with or without final norms."""
    tied = draw(st.booleans()) if tied is None else tied
    return {
        "source_embedding": draw(weights(source_vocab, d_model)),
        "target_embedding": draw(weights(vocab, d_model)),
        "encoder": draw(st.lists(encoder_layer_weights(d_model, d_ff), min_size=1, max_size=most_layers)),
        "decoder": draw(st.lists(decoder_layer_weights(d_model, d_ff), min_size=1, max_size=most_layers)),
        "W_out": None if tied else draw(weights(d_model, vocab)),
        "b_out": draw(st.none() | weights(vocab)),
        "encoder_norm": draw(st.none() | norm_weights(d_model)),
        "decoder_norm": draw(st.none() | norm_weights(d_model)),
    }


@cache
def sequences(b: int, tokens: int, vocab: int) -> st.SearchStrategy[np.ndarray]:
    """Token ids; a sequence shrinks to the first token of the vocabulary, repeated."""
    return SEEDS.map(lambda seed: np.random.default_rng(seed).integers(0, vocab if seed else 1, (b, tokens)))


@st.composite
def transformer_calls(draw: st.DrawFn, *, padded: bool = True, tied: bool | None = None, most_layers: int = 1) -> Call:
    """A source, a target and a whole model; dictionaries of different sizes."""
    b, n, m, h, d_model, d_ff = draw(sizes(even=True, most_tokens=4, most_sequences=2))
    source_vocab, vocab = draw(st.integers(2, 7)), draw(st.integers(2, 6))
    parameters = draw(models(d_model, d_ff, source_vocab=source_vocab, vocab=vocab, tied=tied, most_layers=most_layers))
    source, target = draw(sequences(b, m, source_vocab)), draw(sequences(b, n, vocab))
    real = (draw(real_tokens(b, m)), draw(real_tokens(b, n))) if padded else (None, None)
    scale = draw(st.booleans())
    return Call((source, target, *real), {"parameters": parameters, **draw(choices(h)), "scale_embedding": scale})


@st.composite
def generation_calls(draw: st.DrawFn) -> Call:
    """Sources of different lengths, a start and an end token, sometimes the same, and how many tokens to write at most."""
    b, _, m, h, d_model, d_ff = draw(sizes(even=True, most_tokens=4, most_sequences=2))
    source_vocab, vocab = draw(st.integers(2, 7)), draw(st.integers(2, 6))
    parameters = draw(models(d_model, d_ff, source_vocab=source_vocab, vocab=vocab))
    start, end = draw(st.integers(0, vocab - 1)), draw(st.integers(0, vocab - 1))
    return Call(
        (draw(sequences(b, m, source_vocab)), draw(real_tokens(b, m))),
        {
            "parameters": parameters,
            "bos": start,
            "eos": start if draw(st.sampled_from((False, False, False, True))) else end,
            "length": draw(st.integers(1, 5)),
            **draw(choices(h)),
        },
    )
