"""The article's own example: each of its matrices is there, has the shape the article gives it, and is what it is called."""

from collections import Counter

import numpy as np
import pytest

from properties.assertions import assert_at_most, assert_identical
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.worked_example import D_FF, D_MODEL, SENTENCE, STILL_TO_COME, TRANSLATION, H, describe, parameters, run, vocabulary
from reference.trace import Trace

N, D_K = 16, D_MODEL // H


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The run is the same for all."""
    return run()[1]


def expected_shapes() -> dict[str, tuple[int, int]]:
    """Every matrix of one encoder and one decoder layer, in the article's sizes."""
    tokens, heads, wide = (N, D_MODEL), (N, N), (N, D_FF)
    shapes = {f"{side}.{name}": tokens for side in ("source", "target") for name in ("embedding", "positional_encoding", "input")}
    sublayers = {"encoder": ("self_attention",), "decoder": ("self_attention", "cross_attention")}
    for stack, attentions in sublayers.items():
        for attention in attentions:
            at = f"{stack}.0.{attention}"
            shapes |= {f"{at}.{name}": tokens for name in ("Q", "K", "V", "concat", "output")}
            for i in range(H):
                squares = ("products", "scores", "masked_scores", "weights")
                shapes |= {f"{at}.head.{i}.{name}": heads for name in squares} | {f"{at}.head.{i}.context": (N, D_K)}
        for i in range(1, len(attentions) + 2):
            shapes |= {f"{stack}.0.add_norm_{i}.{name}": tokens for name in ("residual", "norm")}
        forward = f"{stack}.0.feed_forward"
        shapes |= {f"{forward}.preactivation": wide, f"{forward}.hidden": wide, f"{forward}.output": tokens}
    vocab = (N, len(vocabulary(TRANSLATION, STILL_TO_COME)))
    return shapes | {"logits": vocab, "probabilities": vocab}


def test_the_example_has_sixteen_tokens_one_of_them_twice():
    """As in the article: 16 tokens, and a token that repeats."""
    tokens, _ = run()
    twice = [token for token, times in Counter(tokens).items() if times > 1]

    assert len(tokens) == N
    assert tokens == SENTENCE.split()
    assert twice == ["the"]
    assert len(TRANSLATION.split()) == N


def test_every_matrix_has_the_articles_shape(trace):
    """16×512 for tokens, 16×16 for what tokens think of each other, 8 times 16×64 for heads; nothing missing, nothing besides."""
    assert {name: matrix.shape for name, matrix in trace.items()} == expected_shapes()


def test_every_matrix_is_described(trace):
    """`veriformer trace` has a line for each matrix, in the order they were computed, that says what it is and where."""
    lines = list(describe(trace))

    assert [(name, shape) for name, shape, _ in lines] == [(name, matrix.shape) for name, matrix in trace.items()]
    told = {name: description for name, _, description in lines}
    assert told["decoder.0.cross_attention.head.7.weights"].startswith("decoder layer 1, cross-attention to the source, head 8: ")
    assert told["source.embedding"].startswith("source: ")
    assert len(set(told.values())) > len(told) / 2


@claim("E2", oracle_only=True)
def test_the_repeated_token_has_one_embedding(impl, trace):
    """Before positions are added, the two rows of the repeated token are the same, and no other two are."""
    rows = [trace["source.embedding"][i] for i, token in enumerate(SENTENCE.split()) if token == "the"]  # noqa: S105 (a word)

    assert_identical(rows[1], rows[0], "embedding of the second 'the'")
    assert len(np.unique(trace["source.embedding"], axis=0)) == N - 1


@claim("E3", oracle_only=True)
def test_the_repeated_token_differs_by_position(impl, trace):
    """After positions are added all 16 rows differ, and the input is the sum of its two parts."""
    parts = trace["source.embedding"] + trace["source.positional_encoding"]

    assert_identical(trace["source.input"], parts, "source.input")
    assert len(np.unique(trace["source.input"], axis=0)) == N


@claim("M1", oracle_only=True)
def test_the_decoders_weights_are_lower_triangular(impl, trace):
    """In every head of the masked attention each weight on a later token is exactly 0; in the encoder none is."""
    for i in range(H):
        ahead = np.triu(trace[f"decoder.0.self_attention.head.{i}.weights"], k=1)
        assert_identical(ahead, np.zeros((N, N)), f"weights of head {i} on later tokens")
        assert trace[f"encoder.0.self_attention.head.{i}.weights"].min() > 0


@claim("A5", oracle_only=True)
def test_all_weights_and_probabilities_sum_to_one(impl, trace):
    """In every attention of every head, and over the vocabulary."""
    for name, matrix in trace.items():
        if name.endswith(("weights", "probabilities")):
            assert_at_most(np.abs(matrix.sum(axis=-1) - 1).max(), sum_bound(N, "float64", 1.0), f"|row sum − 1| of {name}")


@claim("C3", oracle_only=True)
def test_cross_attention_reads_the_encoders_last_matrix(impl):
    """K and V of every decoder layer come from what the encoder's last norm wrote, Q from the decoder's own tokens."""
    _, two_layers = run(layers=2)
    memory = two_layers["encoder.1.add_norm_2.norm"]

    for i, layer in enumerate(parameters(layers=2).decoder):
        weights, at = layer.cross_attention, f"decoder.{i}.cross_attention"
        asked = two_layers[f"decoder.{i}.add_norm_1.norm"]
        for name, tokens, W, b in (("Q", asked, weights.W_Q, weights.b_Q), ("K", memory, weights.W_K, weights.b_K)):
            assert_identical(two_layers[f"{at}.{name}"], tokens @ W + b, f"{at}.{name}")
        assert_identical(two_layers[f"{at}.V"], memory @ weights.W_V + weights.b_V, f"{at}.V")
