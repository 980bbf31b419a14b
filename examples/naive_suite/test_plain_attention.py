"""Tests as most kernels have them: normal inputs of one size, and `assert_close` with its defaults against float64.

veriformer score --tests examples/naive_suite --replaces plain_attention:attention
"""

import math

import pytest
import torch
from plain_attention import attention

b, h, n, d = 2, 4, 12, 8
SEEDS = range(3)
CAUSAL = torch.ones(n, n, dtype=torch.bool).tril()


def normal(seed, count=3):
    """Numbers with few bits, the same in every dtype."""
    torch.manual_seed(seed)
    return [torch.randn(b, h, n, d).to(torch.bfloat16).to(torch.float64) for _ in range(count)]


def softmax_of(scores, V):
    """The average of the values, in float64."""
    return torch.softmax(scores, dim=-1) @ V


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=["float32", "float16", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_attention(dtype, seed, masked):
    """With no mask, and with a causal one."""
    Q, K, V = normal(seed)
    scores = Q @ K.mT / math.sqrt(d)
    scores = scores.masked_fill(~CAUSAL, -math.inf) if masked else scores

    got = attention(*(X.to(dtype) for X in (Q, K, V)), *([CAUSAL] if masked else []))

    torch.testing.assert_close(got, softmax_of(scores, V).to(dtype))


@pytest.mark.parametrize("seed", SEEDS)
def test_causal(seed):
    """As an option."""
    Q, K, V = normal(seed)

    got = attention(*(X.float() for X in (Q, K, V)), causal=True)

    torch.testing.assert_close(got, softmax_of((Q @ K.mT / math.sqrt(d)).masked_fill(~CAUSAL, -math.inf), V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_scale(seed):
    """Another than 1/√d."""
    Q, K, V = normal(seed)

    got = attention(*(X.float() for X in (Q, K, V)), scale=0.25)

    torch.testing.assert_close(got, softmax_of(Q @ K.mT * 0.25, V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_bias(seed):
    """A causal mask, as numbers that are added."""
    Q, K, V = normal(seed)
    bias = torch.zeros(n, n).masked_fill(~CAUSAL, -math.inf)

    got = attention(*(X.float() for X in (Q, K, V)), bias=bias)

    torch.testing.assert_close(got, softmax_of(Q @ K.mT / math.sqrt(d) + bias, V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_grouped_heads(seed):
    """Half as many heads of keys as of queries."""
    Q, K, V = normal(seed)
    K, V = K[:, : h // 2], V[:, : h // 2]

    got = attention(*(X.float() for X in (Q, K, V)))

    repeated = [X.repeat_interleave(2, dim=1) for X in (K, V)]
    torch.testing.assert_close(got, softmax_of(Q @ repeated[0].mT / math.sqrt(d), repeated[1]).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_window(seed):
    """Four keys before each query."""
    Q, K, V = normal(seed)
    seen = CAUSAL.triu(-4)

    got = attention(*(X.float() for X in (Q, K, V)), window=(4, 0))

    torch.testing.assert_close(got, softmax_of((Q @ K.mT / math.sqrt(d)).masked_fill(~seen, -math.inf), V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_softcap(seed):
    """A usual cap."""
    Q, K, V = normal(seed)

    got = attention(*(X.float() for X in (Q, K, V)), softcap=50.0)

    torch.testing.assert_close(got, softmax_of(50 * torch.tanh(Q @ K.mT / math.sqrt(d) / 50), V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_sinks(seed):
    """Sinks of 0."""
    Q, K, V = normal(seed)
    scores = torch.cat([Q @ K.mT / math.sqrt(d), torch.zeros(b, h, n, 1, dtype=torch.float64)], dim=-1)

    got = attention(*(X.float() for X in (Q, K, V)), sinks=torch.zeros(h))

    torch.testing.assert_close(got, (torch.softmax(scores, dim=-1)[..., :-1] @ V).float())


@pytest.mark.parametrize("seed", SEEDS)
def test_slopes(seed):
    """The slopes of ALiBi."""
    Q, K, V = normal(seed)
    slopes = 2.0 ** (-8.0 / h * torch.arange(1, h + 1))
    far = (torch.arange(n) - torch.arange(n)[:, None]).abs()

    got = attention(*(X.float() for X in (Q, K, V)), slopes=slopes)

    torch.testing.assert_close(got, softmax_of(Q @ K.mT / math.sqrt(d) - slopes[:, None, None] * far, V).float())
