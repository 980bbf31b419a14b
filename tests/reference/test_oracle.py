"""The oracle on its own: fifty digits here and there, torch in float64, what it refuses and what it promises of itself.

Nothing here knows the fast implementation.
"""

import math
from dataclasses import asdict
from itertools import product

import mpmath
import numpy as np
import pytest
import torch
from test_second_derivations import assert_same
from torch.nn import functional as F

from properties.assertions import assert_at_most
from properties.error_budget.budgets import sum_bound
from properties.implementations.oracle import transformer_parameters
from properties.implementations.shapes import shapes_unchecked
from properties.inputs.parameters import ACTIVATIONS, NORMS, Nested, dyadic
from reference.attention import attention
from reference.decoder import decoder
from reference.embedding import embedding
from reference.encoder import encoder
from reference.feed_forward import gelu, gelu_tanh, relu
from reference.initialisation import initialise
from reference.mask import causal_mask, padding_mask
from reference.multi_head import split_heads
from reference.parameters import Architecture, NormParameters
from reference.positional_encoding import positional_encoding
from reference.residual_norm import layer_norm
from reference.softmax import softmax
from reference.trace import Trace
from reference.transformer import transformer

mpmath.mp.dps = 50
SEEDS = range(5)


def erf_again(x: float) -> float:
    """Its Taylor series, in 50 digits."""
    x, terms = mpmath.mpf(x), range(400)
    return float(
        2 / mpmath.sqrt(mpmath.pi) * mpmath.fsum((-1) ** k * x ** (2 * k + 1) / (mpmath.factorial(k) * (2 * k + 1)) for k in terms)
    )


# Fifty digits ---------------------------------------------------------------------------------------------------------


def mp_softmax(scores: list[float]) -> list[mpmath.mpf]:
    """exp(s_j) / Σ exp(s_k), as written."""
    exponentials = [mpmath.exp(mpmath.mpf(s)) for s in scores]
    return [e / mpmath.fsum(exponentials) for e in exponentials]


@pytest.mark.parametrize("scores", [[0.0, 0.5, -1.25], [700.0, 710.0, 705.5], [-1000.0, -1000.5], [1e4, 0.0], [0.0]])
def test_softmax_to_fifty_digits(scores):
    """Also where exp(s) is beyond float64."""
    expected = np.array([[float(p) for p in mp_softmax(scores)]])

    assert_same(softmax(np.array([scores])), expected, 2 * len(scores), "softmax")


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_to_fifty_digits(seed):
    """Three queries, five keys, width 4."""
    Q, K, V = (dyadic(10 * seed + k + 2, shape, 4.0) for k, shape in enumerate(((3, 4), (5, 4), (5, 2))))
    expected = []
    for q in Q:
        scores = [mpmath.fdot(map(mpmath.mpf, q), map(mpmath.mpf, k)) / mpmath.sqrt(4) for k in K]
        exponentials = [mpmath.exp(s) for s in scores]
        weights = [e / mpmath.fsum(exponentials) for e in exponentials]
        expected.append([float(mpmath.fdot(weights, map(mpmath.mpf, V[:, c]))) for c in range(2)])

    assert_same(attention(Q, K, V), np.array(expected), 2**6, "attention")


@pytest.mark.parametrize(
    ("offset", "spread", "eps"), [(0.0, 1.0, 1e-5), (1e4, 0.125, 1e-5), (0.0, 2.0**-9, 1e-5), (0.0, 2.0**40, 1e-3)]
)
def test_layer_norm_to_fifty_digits(offset, spread, eps):
    """Plain, on a large offset, with a variance below eps, huge."""
    x = offset + dyadic(3, (7,), spread)
    exact = [mpmath.mpf(v) for v in x]
    mean = mpmath.fsum(exact) / 7
    variance = mpmath.fsum((v - mean) ** 2 for v in exact) / 7
    expected = np.array([[float((v - mean) / mpmath.sqrt(variance + mpmath.mpf(eps))) for v in exact]])

    error = sum_bound(7, "float64", offset) / float(mpmath.sqrt(variance + eps)) + sum_bound(2**4, "float64", 3.0)
    got = layer_norm(x[None], NormParameters(np.ones(7), np.zeros(7)), eps)
    assert_at_most(float(np.abs(got - expected).max()), error, "layer_norm")


@pytest.mark.parametrize("x", [-6.0, -3.5, -2.0, -1.0, -0.0625, 0.0, 0.0625, 0.75, 1.0, 2.25, 4.0, 6.0])
def test_activations_to_fifty_digits(x):
    """GELU with erf from its series, its tanh approximation, and ReLU."""
    exact = mpmath.mpf(x)
    inner = mpmath.sqrt(2 / mpmath.pi) * (exact + mpmath.mpf("0.044715") * exact**3)

    for got, expected in (
        (gelu, exact / 2 * (1 + mpmath.erf(exact / mpmath.sqrt(2)))),
        (gelu_tanh, exact / 2 * (1 + mpmath.tanh(inner))),
        (relu, max(exact, mpmath.mpf(0))),
    ):
        assert_same(got(np.array([[x]])), np.array([[float(expected)]]), 8, got.__name__)
    assert_same(np.array([math.erf(x / 2)]), np.array([erf_again(x / 2)]), 8, "erf")


@pytest.mark.parametrize(("position", "d_model"), [(0, 2), (1, 4), (15, 512), (711, 2), (5000, 64)])
def test_positional_encoding_to_fifty_digits(position, d_model):
    """sin(p · 10000^(−2i/d)) and its cosine; the angle's rounding grows with the position."""
    got = positional_encoding(np.array([float(position)]), d_model)[0]
    for i in range(d_model // 2):
        angle = position * mpmath.power(10000, mpmath.mpf(-2 * i) / d_model)
        allowed = sum_bound(4, "float64", max(1.0, float(angle)))
        assert_at_most(abs(got[2 * i] - float(mpmath.sin(angle))), allowed, f"PE[{position}, {2 * i}]")
        assert_at_most(abs(got[2 * i + 1] - float(mpmath.cos(angle))), allowed, f"PE[{position}, {2 * i + 1}]")


# torch in float64 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_norm_and_gelu_as_torch_has_them(seed):
    """F.scaled_dot_product_attention, F.layer_norm and both F.gelu, in float64."""
    Q, K, V = (dyadic(10 * seed + k + 2, shape, 4.0) for k, shape in enumerate(((5, 4), (7, 4), (7, 3))))
    mask = np.random.default_rng(seed).random((5, 7)) < 0.7
    mask[:, 0] = True
    tensors = [torch.from_numpy(A)[None, None] for A in (Q, K, V)]
    theirs = F.scaled_dot_product_attention(*tensors, attn_mask=torch.from_numpy(mask)[None, None])[0, 0].numpy()
    assert_same(attention(Q, K, V, mask), theirs, 2**6, "attention")

    gain, bias = dyadic(seed + 90, (7,)), dyadic(seed + 91, (7,))
    X = dyadic(seed + 92, (5, 7), 8.0)
    theirs = F.layer_norm(torch.from_numpy(X), (7,), torch.from_numpy(gain), torch.from_numpy(bias), 1e-5).numpy()
    assert_same(layer_norm(X, NormParameters(gain, bias)), theirs, 2**6, "layer_norm")

    assert_same(gelu(X), F.gelu(torch.from_numpy(X)).numpy(), 2**4, "gelu")
    assert_same(gelu_tanh(X), F.gelu(torch.from_numpy(X), approximate="tanh").numpy(), 2**4, "gelu_tanh")


def torch_attention(module: torch.nn.MultiheadAttention, p: Nested) -> None:
    """Write our projections into torch's attention: one stacked matrix, transposed."""
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.from_numpy(np.concatenate([p[name].T for name in ("W_Q", "W_K", "W_V")])))
        module.in_proj_bias.copy_(torch.from_numpy(np.concatenate([p[name] for name in ("b_Q", "b_K", "b_V")])))
        module.out_proj.weight.copy_(torch.from_numpy(p["W_O"].T.copy()))
        module.out_proj.bias.copy_(torch.from_numpy(p["b_O"]))


def torch_layer(module: torch.nn.Module, p: Nested) -> None:
    """Write our layer into torch's."""
    torch_attention(module.self_attn, p["self_attention"])
    if "cross_attention" in p:
        torch_attention(module.multihead_attn, p["cross_attention"])
    with torch.no_grad():
        for i in (name[-1] for name in p if name.startswith("norm")):
            getattr(module, f"norm{i}").weight.copy_(torch.from_numpy(p[f"norm_{i}"]["gain"]))
            getattr(module, f"norm{i}").bias.copy_(torch.from_numpy(p[f"norm_{i}"]["bias"]))
        for i in "12":
            getattr(module, f"linear{i}").weight.copy_(torch.from_numpy(p["feed_forward"][f"W_{i}"].T.copy()))
            getattr(module, f"linear{i}").bias.copy_(torch.from_numpy(p["feed_forward"][f"b_{i}"]))


def shaken(nested, rng: np.random.Generator):
    """The same parameters, each moved at random: no bias is 0 and no gain 1."""
    if isinstance(nested, dict):
        return {key: shaken(item, rng) for key, item in nested.items()}
    if isinstance(nested, (list, tuple)):
        return [shaken(item, rng) for item in nested]
    return None if nested is None else nested + rng.normal(0, 0.25, nested.shape)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # torch's note that it takes its plain path
@pytest.mark.parametrize(("norm", "activation"), list(product(NORMS, ACTIVATIONS[:2])))
def test_the_stacks_are_those_of_torchs_transformer(norm, activation):
    """nn.Transformer in float64 with the same weights: two layers a side, its final norms, padding, and its causal mask."""
    d, h, d_ff, n, m = 12, 3, 20, 5, 7
    rng = np.random.default_rng(42)
    parameters = shaken(asdict(initialise(1, vocab=9, d_model=d, d_ff=d_ff, layers=2)), rng)
    final = [{"gain": 1 + rng.normal(0, 0.25, d), "bias": rng.normal(0, 0.25, d)} for _ in range(2)]
    p = transformer_parameters({**parameters, "encoder_norm": final[0], "decoder_norm": final[1]})
    options = {"norm_first": norm == "pre", "activation": activation, "batch_first": True, "dtype": torch.float64, "dropout": 0.0}
    module = torch.nn.Transformer(d, h, 2, 2, d_ff, **options)
    for stack, layers, last in zip((module.encoder, module.decoder), ("encoder", "decoder"), final, strict=True):
        for layer, weights in zip(stack.layers, parameters[layers], strict=True):
            torch_layer(layer, weights)
        with torch.no_grad():
            stack.norm.weight.copy_(torch.from_numpy(last["gain"]))
            stack.norm.bias.copy_(torch.from_numpy(last["bias"]))
    source, target = rng.normal(size=(m, d)), rng.normal(size=(n, d))
    real = np.array([True, True, False, True, True, False, True])

    a = Architecture(h=h, norm=norm, activation=activation)
    M = encoder(source, p.encoder, a, padding_mask(real, m), p.encoder_norm)
    ours = decoder(target, M, p.decoder, a, None, padding_mask(real, n), p.decoder_norm)

    hidden = torch.from_numpy(~real)[None]
    theirs = module(
        torch.from_numpy(source)[None],
        torch.from_numpy(target)[None],
        tgt_mask=torch.from_numpy(~causal_mask(n)),
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    assert_same(ours, theirs[0].detach().numpy(), 2**10, "decoder output")


# What it refuses, and what it promises of itself ----------------------------------------------------------------------


def test_the_oracle_refuses_what_has_no_answer():
    """Each a ValueError that says what was expected and what came, where nobody checks annotations either."""
    p = initialise(1, vocab=3, d_model=4, d_ff=4, layers=1)
    one, none = np.array([1]), np.array([], dtype=np.int64)
    refused = {
        "d_model: expected an even number": lambda: positional_encoding(np.arange(2.0), 3),
        "h: expected a number of heads that divides 4 features, got 3": lambda: split_heads(np.zeros((2, 4)), 3),
        "tokens: expected ids from 0 to 2 .*got 3": lambda: embedding(np.array([0, 3]), p.source_embedding),
        "tokens: expected ids from 0 to 2 .*got -1": lambda: embedding(np.array([-1]), p.source_embedding),
        "source: expected at least one token": lambda: transformer(none, one, p, Architecture(h=2)),
        "target: expected at least one token": lambda: transformer(one, none, p, Architecture(h=2)),
        "norm: expected 'post' or 'pre'": lambda: Architecture(norm="both"),  # type: ignore[arg-type]
        "activation: expected": lambda: Architecture(activation="swish"),  # type: ignore[arg-type]
        "h: expected at least one head": lambda: Architecture(h=0),
        "vocab: expected at least 1": lambda: initialise(1, vocab=0),
    }

    for message, call in refused.items():
        with shapes_unchecked(), pytest.raises(ValueError, match=message):
            call()


def test_a_fully_masked_row_gets_zeros():
    """A row that is fully masked has weights 0 and output 0, by declared convention."""
    fully_masked = np.array([[True, True], [False, False]])

    assert np.array_equal(attention(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 5)), fully_masked), [[1.0] * 5, [0.0] * 5])
    assert np.array_equal(softmax(np.full((1, 3), -np.inf)), np.zeros((1, 3)))


def test_tracing_changes_nothing():
    """The logits are the same bits with a trace as without, and every traced matrix is float64."""
    p = initialise(1, vocab=5, d_model=8, d_ff=6, layers=2)
    tokens = np.array([1, 4, 2])
    with Trace() as trace:
        traced = transformer(tokens, tokens, p, Architecture(h=2))

    assert np.array_equal(traced, transformer(tokens, tokens, p, Architecture(h=2)))
    assert all(matrix.dtype == np.float64 for matrix in trace.values())
    assert np.array_equal(trace["logits"], traced)
