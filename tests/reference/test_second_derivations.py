"""Every formula of the oracle a second time, by another road.

No matrix product and no NumPy reduction: Python loops, `math.fsum`, and other algebra where there is any.
"""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most
from properties.error_budget.budgets import sum_bound
from properties.implementations.oracle import oracle, transformer_parameters
from properties.inputs.parameters import (
    dyadic,
    feed_forward_calls,
    generation_calls,
    multi_head_calls,
    norm_weights,
    transformer_calls,
)
from properties.test_residual_norm import rows_for_a_norm
from reference.generation import generate
from reference.mask import apply_mask, both, causal_mask, padding_mask
from reference.multi_head import concat_heads, multi_head, split_heads
from reference.output_projection import next_token
from reference.parameters import Architecture, MultiHeadParameters, NormParameters, TransformerParameters
from reference.positional_encoding import positional_encoding
from reference.residual_norm import layer_norm, residual_norm
from reference.transformer import transformer


def assert_same(got: np.ndarray, expected: np.ndarray, terms: int, what: str) -> None:
    """Equal but for float64 rounding of sums of `terms` terms, as large as the largest number expected (and at least 1)."""
    assert got.shape == expected.shape, what
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    assert_at_most(float(np.abs(got - expected).max(initial=0.0)), sum_bound(terms, "float64", scale), what)


def dot(x: list[float], y: list[float]) -> float:
    """⟨x, y⟩, rounded once."""
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def linear_again(X: np.ndarray, W: np.ndarray, b: np.ndarray | None) -> list[list[float]]:
    """X W + b, entry by entry."""
    columns = [list(W[:, c]) for c in range(W.shape[1])]
    return [[dot(list(x), column) + (0.0 if b is None else b[c]) for c, column in enumerate(columns)] for x in X]


def softmax_again(scores: list[float]) -> list[float]:
    """p_j = 1 / Σ_k exp(s_k − s_j): no maximum, no common denominator; hidden scores are −inf."""
    if all(score == -math.inf for score in scores):
        return [0.0] * len(scores)
    visible = [score for score in scores if score > -math.inf]
    return [0.0 if s == -math.inf else 1.0 / math.fsum(math.exp(min(other - s, 700.0)) for other in visible) for s in scores]


def attention_again(Q: list, K: list, V: list, mask: np.ndarray | None = None) -> list[list[float]]:
    """A weighted average of values for each query, key by key."""
    out = []
    for i, q in enumerate(Q):
        scores = [dot(q, k) / math.sqrt(len(q)) if mask is None or mask[i, j] else -math.inf for j, k in enumerate(K)]
        weights = softmax_again(scores)
        out.append([dot(weights, [v[c] for v in V]) for c in range(len(V[0]))])
    return out


def multi_head_again(X: np.ndarray, M: np.ndarray, mask: np.ndarray | None, h: int, p: MultiHeadParameters) -> np.ndarray:
    """Σ_i head_i W_Oⁱ: each head's own rows of W_O, summed, instead of a concatenation."""
    d_k = p.W_Q.shape[1] // h
    out = np.zeros((len(X), p.W_O.shape[1])) + (0.0 if p.b_O is None else p.b_O)
    for i in range(h):
        own = slice(d_k * i, d_k * (i + 1))
        biases = [None if b is None else b[own] for b in (p.b_Q, p.b_K, p.b_V)]
        Q, K, V = (linear_again(A, W[:, own], b) for A, W, b in zip((X, M, M), (p.W_Q, p.W_K, p.W_V), biases, strict=True))
        out += np.array(linear_again(np.array(attention_again(Q, K, V, mask)), p.W_O[own], None))
    return out


def layer_norm_again(X: np.ndarray, p: NormParameters, eps: float) -> np.ndarray:
    """The variance from all pairs of features: var x = Σ_{c<c'} (x_c − x_c')² / d²; the mean as a difference to each feature."""
    out = []
    for x in X:
        d = len(x)
        variance = math.fsum((x[c] - x[k]) ** 2 for c in range(d) for k in range(c)) / d**2
        centred = [math.fsum(x[c] - other for other in x) / d for c in range(d)]
        out.append([p.gain[c] * centred[c] / math.sqrt(variance + eps) + p.bias[c] for c in range(d)])
    return np.array(out)


@given(multi_head_calls())
def test_multi_head_is_the_sum_over_heads_of_plain_attentions(call):
    """Attention key by key, heads summed through their rows of W_O."""
    X, M, mask = call.args
    h = call.kwargs["h"]
    p = MultiHeadParameters(**{name: value for name, value in call.kwargs.items() if name != "h"})
    full = None if mask is None else np.broadcast_to(mask, (len(X), h, X.shape[1], M.shape[1]))

    for i in range(len(X)):
        if full is None or (full[i] == full[i, :1]).all():
            again = multi_head_again(X[i], M[i], None if full is None else full[i, 0], h, p)
            assert_same(multi_head(X[i], M[i], p, h, None if full is None else full[i, 0]), again, 2**8, "multi_head")
    heads = [multi_head(X[0], M[0], p, h, None if full is None else list(full[0]))]
    assert_same(heads[0], oracle("multi_head", *call.args, **call.kwargs)[0], 1, "per-head masks through the face of the steps")


@given(rows_for_a_norm().flatmap(lambda X: st.tuples(st.just(X), norm_weights(X.shape[-1]))), st.sampled_from((1e-5, 1e-3)))
def test_layer_norm_from_all_pairs_of_features(drawn, eps):
    """The variance is the mean squared difference of pairs, halved: no mean is taken."""
    X, norm = drawn
    p = NormParameters(**norm)

    for row in X.reshape(-1, 1, X.shape[-1]):
        error = sum_bound(len(row[0]), "float64", float(np.abs(row).max()))  # of a mean of large numbers, over the root of eps
        got, again = layer_norm(row, p, eps), layer_norm_again(row, p, eps)
        spread = math.sqrt(max(float(row.var()), 0.0) + eps)
        allowed = 4 * error / spread + sum_bound(2**6, "float64", float(np.abs(again).max()) + 1.0)
        assert_at_most(float(np.abs(got - again).max()), allowed, "layer_norm")


@given(feed_forward_calls())
def test_feed_forward_unit_by_unit(call):
    """Each hidden unit adds its own row of W_2; GELU by the complementary error function, tanh by exponentials."""
    (X,), p = call.args, call.kwargs
    bend = {
        "relu": lambda x: (x + abs(x)) / 2,
        "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
        "gelu_tanh": lambda x: (
            x / (1 + math.exp(-min(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), 700.0))) if x > -20 else -0.0
        ),
    }[p["activation"]]

    for i, tokens in enumerate(X):
        hidden = [[bend(unit) for unit in row] for row in linear_again(tokens, p["W_1"], p["b_1"])]
        again = np.array([[dot(row, list(p["W_2"][:, c])) + p["b_2"][c] for c in range(X.shape[-1])] for row in hidden])
        assert_same(oracle("feed_forward", *call.args, **call.kwargs)[i], again, 2**10, "feed_forward")


@pytest.mark.parametrize("d_model", [2, 6, 16, 512])
def test_positional_encoding_by_turning(d_model):
    """Row p + 1 is row p with every pair of features turned by ω_i: the sine is never taken at a large angle."""
    rows = 64
    got = positional_encoding(np.arange(rows, dtype=np.float64), d_model)
    turn = np.exp(1j * np.array([math.exp(-2 * i / d_model * math.log(10000.0)) for i in range(d_model // 2)]))

    state = np.full(d_model // 2, 1 + 0j)
    for p in range(rows):
        again = np.stack([state.imag, state.real], axis=-1).ravel()
        assert_same(got[p], again, 2**8, f"row {p}")
        state = state * turn


@pytest.mark.parametrize(("n", "m"), list(product((1, 2, 5), (1, 3, 5))))
def test_masks_entry_by_entry(n, m):
    """Token i may attend to token j if j does not come after i; padding hides columns; both is both."""
    real = np.arange(m) % 2 == 0
    causal, padding = causal_mask(n, m), padding_mask(real, n)

    assert causal.tolist() == [[j <= i for j in range(m)] for i in range(n)]
    assert padding.tolist() == [[bool(real[j]) for j in range(m)] for _ in range(n)]
    allowed = both(causal, padding)
    assert allowed is not None
    assert allowed.tolist() == [[j <= i and bool(real[j]) for j in range(m)] for i in range(n)]
    assert both(None, None) is None
    assert both(causal, None) is causal
    scores = np.full((n, m), np.inf)
    assert np.array_equal(apply_mask(scores, causal), np.where(causal, np.inf, -np.inf))


def test_heads_are_slices_in_order():
    """Head i is columns d_k·i … d_k·(i+1) − 1, and concatenation undoes the split."""
    X = np.arange(24.0).reshape(2, 12)

    assert [head.tolist() for head in split_heads(X, 3)] == [[list(row[4 * i : 4 * i + 4]) for row in X] for i in range(3)]
    assert np.array_equal(concat_heads(split_heads(X, 4)), X)


def whole_again(source: np.ndarray, target: np.ndarray, p: TransformerParameters, a: Architecture) -> np.ndarray:
    """The Transformer from the second derivations alone, in one function."""
    d = p.source_embedding.shape[1]

    def enter(tokens: np.ndarray, table: np.ndarray) -> np.ndarray:
        places = [
            [(math.sin if c % 2 == 0 else math.cos)(t * 10000.0 ** (-(c - c % 2) / d)) for c in range(d)]
            for t in range(len(tokens))
        ]
        return np.array([[table[w][c] * (math.sqrt(d) if a.scale_embedding else 1) for c in range(d)] for w in tokens]) + places

    def add_norm(X: np.ndarray, sublayer, norm: NormParameters) -> np.ndarray:
        if a.norm == "pre":
            return X + sublayer(layer_norm_again(X, norm, a.eps))
        return layer_norm_again(X + sublayer(X), norm, a.eps)

    def forward(layer):
        bend = {"relu": lambda x: max(x, 0.0), "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2}
        bend["gelu_tanh"] = lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        f = layer.feed_forward

        def think(X: np.ndarray) -> np.ndarray:
            hidden = [[bend[a.activation](unit) for unit in row] for row in linear_again(X, f.W_1, f.b_1)]
            return np.array(linear_again(np.array(hidden), f.W_2, f.b_2))

        return think

    M = enter(source, p.source_embedding)
    for layer in p.encoder:
        M = add_norm(M, lambda X, w=layer.self_attention: multi_head_again(X, X, None, a.h, w), layer.norm_1)
        M = add_norm(M, forward(layer), layer.norm_2)
    M = M if p.encoder_norm is None else layer_norm_again(M, p.encoder_norm, a.eps)
    X = enter(target, p.target_embedding)
    past = np.tril(np.ones((len(target), len(target)), dtype=bool))
    for layer in p.decoder:
        X = add_norm(X, lambda X, w=layer.self_attention: multi_head_again(X, X, past, a.h, w), layer.norm_1)
        X = add_norm(X, lambda X, w=layer.cross_attention: multi_head_again(X, M, None, a.h, w), layer.norm_2)
        X = add_norm(X, forward(layer), layer.norm_3)
    X = X if p.decoder_norm is None else layer_norm_again(X, p.decoder_norm, a.eps)
    return np.array(linear_again(X, p.target_embedding.T if p.W_out is None else p.W_out, p.b_out))


@given(transformer_calls(padded=False))
def test_the_whole_by_the_second_derivations(call):
    """Every choice, one sequence at a time: the oracle's Transformer and the one made of loops say the same."""
    source, target, *_ = call.args
    p = transformer_parameters(call.kwargs["parameters"])
    a = Architecture(**{name: value for name, value in call.kwargs.items() if name != "parameters"})

    assert_same(transformer(source[0], target[0], p, a), whole_again(source[0], target[0], p, a), 2**14, "transformer")


@given(generation_calls())
def test_generation_by_teaching_every_prefix(call):
    """Each token the oracle writes is the argmax of the last row of its own Transformer, asked anew; it stops at the end token."""
    source = call.args[0][0]
    p = transformer_parameters(call.kwargs["parameters"])
    rest = {k: v for k, v in call.kwargs.items() if k in ("bos", "eos", "length")}
    a = Architecture(**{k: v for k, v in call.kwargs.items() if k not in ("parameters", *rest)})
    expected = [rest["bos"]]
    while len(expected) <= rest["length"]:
        logits = transformer(source, np.array(expected), p, a)[-1]
        expected.append(int(np.flatnonzero(logits == logits.max())[0]))
        if expected[-1] == rest["eos"]:
            break

    assert generate(source, p, a, **rest).tolist() == expected[1:]


def test_probabilities_are_the_softmax_of_logits():
    """`next_token` is softmax, row by row."""
    logits = dyadic(5, (3, 4), 4.0)

    assert_same(next_token(logits), np.array([softmax_again(list(row)) for row in logits]), 8, "next_token")


def test_residual_norm_runs_its_sublayer_on_the_right_side():
    """Post: the norm of x + f(x). Pre: x + f of the norm of x."""
    X, p = dyadic(6, (3, 4), 2.0), NormParameters(dyadic(7, (4,)), dyadic(8, (4,)))

    def twice(X: np.ndarray) -> np.ndarray:
        return 2 * X

    assert_same(residual_norm(X, twice, p), layer_norm_again(3 * X, p, 1e-5), 2**6, "post")
    assert_same(residual_norm(X, twice, p, norm="pre"), X + 2 * layer_norm_again(X, p, 1e-5), 2**6, "pre")
