"""Gradients at every size: of many rows, at the edges of blocks, of many heads, features, tokens and layers.

A backward pass has blocks of its own. One that drops the last rows, adds up the first 1024 only or lets a repeated token's last
row overwrite the others is right on small examples, and a model still learns by it.
"""

from collections.abc import Iterator

import numpy as np

from properties.assertions import assert_identical
from properties.claims import claim
from properties.inputs.parameters import Call, Nested, dyadic
from properties.test_residual_norm import silenced
from properties.test_sizes import MANY, TINY, at_the_edges, ids, model
from properties.test_transformer import PRECISE, assert_gradients_say_how_the_oracle_moves, named

SEED, VOCAB, SOURCE_VOCAB = 11, 7, 5
ROWS = (*at_the_edges(128), 257, 1025)  # of them none but the edges is a multiple of anything
BATCHES = ((3, 11), (5, 13), (3, 43), (25, 41))  # sequences and tokens: 33, 65, 129 and 1025 rows


# ---- exact sums, in every dtype ----


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers −1, 0 and 1."""
    return rng.integers(-1, 2, shape).astype(np.float64)


def signed_permutation(rng: np.random.Generator, d: int) -> np.ndarray:
    """A matrix that reorders features and turns some of their signs: nothing grows, nothing is rounded."""
    return np.eye(d)[rng.permutation(d)] * rng.choice((-1.0, 1.0), d)


def exact_call(b: int, n: int) -> Call:
    """A pre-norm model of whole numbers that adds to a target's rows nothing but what its source's one token says.

    All other sublayers are silent, so that a gradient passes them unchanged. Each row's loss is one logit, up or down by turns:
    all sums are small whole numbers, exact in every dtype and order.
    """
    rng = np.random.default_rng(SEED + b * n)
    layers = model(TINY, 6, VOCAB, 1)
    nothing, bias = np.zeros((TINY, TINY)), np.zeros(TINY)
    cross = {"W_Q": nothing, "W_K": nothing, "b_Q": bias, "b_K": bias, "b_V": whole(rng, TINY), "b_O": whole(rng, TINY)}
    cross |= {name: signed_permutation(rng, TINY) for name in ("W_V", "W_O")}
    decoder = {**silenced(layers["decoder"][0], "self_attention", "feed_forward"), "cross_attention": cross}
    parameters = {
        "source_embedding": whole(rng, SOURCE_VOCAB, TINY),
        "target_embedding": whole(rng, VOCAB, TINY),
        "encoder": [silenced(layers["encoder"][0], "self_attention", "feed_forward")],
        "decoder": [decoder],
        "W_out": whole(rng, TINY, VOCAB),
        "b_out": whole(rng, VOCAB),
        "encoder_norm": None,
        "decoder_norm": None,
    }
    turns = np.where(np.arange(b * n) % 2, -1.0, 1.0)
    direction = np.eye(VOCAB)[rng.integers(0, VOCAB, b * n)] * turns[:, None]
    tokens = rng.integers(0, SOURCE_VOCAB, (b, 1)), rng.integers(0, VOCAB, (b, n))
    return Call(tokens, {"parameters": parameters, "h": 2, "norm": "pre", "direction": direction.reshape(b, n, VOCAB)})


def exact_gradients(call: Call) -> dict[str, np.ndarray]:
    """What the rules of differentiation give for these, parameter by parameter; those that see a rounded number are left out."""
    (source, target), parameters, direction = call.args, call.kwargs["parameters"], call.kwargs["direction"]
    cross, factor = parameters["decoder"][0]["cross_attention"], np.sqrt(TINY)
    place = np.array([0.0, 1.0] * (TINY // 2))  # the encoding of the first position
    memory = factor * parameters["source_embedding"][source[:, 0]] + place
    rows = direction @ parameters["W_out"].T  # at every row of the decoder
    of_sequences = rows.sum(axis=1)
    of_values = of_sequences @ cross["W_O"].T
    of_memory = of_values @ cross["W_V"].T
    total = of_sequences.sum(axis=0)
    gradients = {
        "b_out": direction.sum(axis=(0, 1)),
        "target_embedding": factor * sums_by(target.ravel(), rows.reshape(-1, TINY), VOCAB),
        "source_embedding": factor * sums_by(source.ravel(), of_memory, SOURCE_VOCAB),
        "decoder.0.self_attention.b_O": total,
        "decoder.0.cross_attention.b_O": total,
        "decoder.0.feed_forward.b_2": total,
        "decoder.0.cross_attention.b_V": of_values.sum(axis=0),
        "decoder.0.cross_attention.W_V": memory.T @ of_values,
        "decoder.0.cross_attention.W_O": (memory @ cross["W_V"] + cross["b_V"]).T @ of_sequences,
        "encoder.0.self_attention.b_O": of_memory.sum(axis=0),
        "encoder.0.feed_forward.b_2": of_memory.sum(axis=0),
    }
    if target.shape[1] == 1:
        said = (memory @ cross["W_V"] + cross["b_V"]) @ cross["W_O"] + cross["b_O"]
        X = factor * parameters["target_embedding"][target[:, 0]] + place + said
        gradients["W_out"] = X.T @ direction[:, 0]
    return gradients


def sums_by(tokens: np.ndarray, rows: np.ndarray, vocab: int) -> np.ndarray:
    """The sum of the rows of each token, (vocab, d)."""
    return (tokens == np.arange(vocab)[:, None]) @ rows


@claim("T2", needs="gradients")
def test_gradients_of_many_rows_are_exact_sums(impl):
    """Biases, embeddings, values and the output matrix get the sum over all rows, bit for bit, however many there are.

    33, 65, 129 and 1025 rows and the edges of blocks: as many sequences, as many tokens of one, and both.
    """
    for b, n in (*((rows, 1) for rows in ROWS), *((1, rows) for rows in ROWS), *BATCHES):
        call = exact_call(b, n)
        gradients = named(impl.gradients(*call.args, **call.kwargs))
        for name, exact in exact_gradients(call).items():
            assert_identical(gradients[name], exact, f"gradient of {name} by {b} × {n} tokens")


# ---- all parameters, where there are digits to tell a slope by ----


def large_calls() -> Iterator[Call]:
    """Models and batches larger than small examples on every axis, with a loss of every row."""
    tiny = model(TINY, 6, VOCAB, 1)
    for b, n, m in (*((b, n, 4) for b, n in BATCHES), (1, 130, 131), (MANY, 3, 5)):
        yield _call(tiny, b, n, m)
    yield _call(model(TINY, 6, VOCAB, MANY), 2, 3, 4)
    yield _call(model(8 * MANY, 130, 131, 1), 2, 3, 4, h=MANY)


def _call(parameters: Nested, b: int, n: int, m: int, h: int = 2) -> Call:
    vocab = len(parameters["target_embedding"])
    direction = dyadic(SEED + b, (b, n, vocab))
    return Call(
        (ids(vocab, b, m), ids(vocab, b, n)), {"parameters": parameters, "h": h, "activation": "gelu", "direction": direction}
    )


def of_the_last_row(call: Call) -> Call:
    """The same with a loss of the last row alone: whoever drops it is left with nothing."""
    last = np.zeros_like(call.kwargs["direction"])
    last[-1, -1] = call.kwargs["direction"][-1, -1]
    return call.but(direction=last)


def at_the_ends(array: np.ndarray) -> np.ndarray:
    """1 where an index is the last of its axis, 0 elsewhere."""
    return np.any(np.meshgrid(*(np.arange(length) == length - 1 for length in array.shape), indexing="ij"), axis=0)


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
def test_gradients_at_every_size_agree_with_differences_of_the_oracle(impl):
    """Along directions of all parameters, and of the last rows and columns alone, ⟨gradient, direction⟩ is the oracle's slope."""
    for large in large_calls():
        weights = named(large.kwargs["parameters"])
        everywhere = {name: dyadic(2 + i, array.shape) for i, (name, array) in enumerate(weights.items())}
        ends = {name: at_the_ends(array) * everywhere[name] for name, array in weights.items()}
        for call in (large, of_the_last_row(large)):
            assert_gradients_say_how_the_oracle_moves(impl, call, everywhere, ends)
