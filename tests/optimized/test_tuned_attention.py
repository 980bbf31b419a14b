"""Attention of the tuned tier: in panels at every remainder, exact about what is hidden, and some sequences at a time."""

import pytest
import torch

from optimized import tuned
from optimized.decoder import decoder_layer
from optimized.initialisation import initialise
from optimized.packing import pack
from optimized.parameters import Architecture, map_tensors
from optimized.transformer import transformer
from optimized.tuned import layers

DTYPES = [dtype for dtype in tuned.dtypes() if dtype.is_floating_point]
TWO_HEADS = Architecture(h=2)
pytestmark = pytest.mark.skipif(bool(tuned.missing()), reason=tuned.missing())


def random(*shape, seed=0):
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "features"),
    [
        (2, 1, 8),
        (12, 32, 64),
        (13, 33, 8),
        (40, 15, 34),
        (70, 300, 16),
        (300, 257, 40),
        (5, 3, 600),
        (64, 64, 128),
        (2, 1, 64),
        (33, 45, 128),
        (300, 257, 64),
    ],
)
def test_attention_of_many_queries_is_exact_but_for_rounding_at_every_remainder(n, m, features, dtype):
    """Of queries in a tile, keys in a panel or a line of scores, and features: beside the same layer in float64."""
    layer = map_tensors(lambda W: W.to(dtype), initialise(0, vocab=3, d_model=features, d_ff=4, layers=1).decoder[0])
    X, M = random(2, n, features).to(dtype), random(2, m, features, seed=1).to(dtype)

    found = decoder_layer(X, M, pack(layer, rows=n, layout="panels"), TWO_HEADS)

    expected = decoder_layer(X.double(), M.double(), map_tensors(torch.Tensor.double, layer), TWO_HEADS)
    off = 1e-5 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=off)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_token_that_is_hidden_changes_no_bit(bad, dtype):
    """Whatever is behind the causal rule, to the last query that may not see it."""
    given = map_tensors(lambda W: W.to(dtype), initialise(0, vocab=3, d_model=64, d_ff=4, layers=1).decoder[0])
    layer = pack(given, rows=40, layout="panels")
    X, M = random(1, 40, 64).to(dtype), random(1, 5, 64, seed=1).to(dtype)
    expected = decoder_layer(X, M, layer, TWO_HEADS)

    for hidden in (1, 11, 12, 25, 39):
        changed = X.clone()
        changed[:, hidden:] = bad
        found = decoder_layer(changed, M, layer, TWO_HEADS)
        assert torch.equal(found[:, :hidden], expected[:, :hidden])
        assert found[:, hidden:].isnan().all()


@pytest.mark.parametrize("rows", [1, 7, 9, 100])
def test_sequences_go_through_a_stack_some_at_a_time(rows, monkeypatch):
    """Each with its own source; at least one."""
    given = initialise(0, vocab=11, d_model=8, d_ff=6, layers=2, tied=True)
    packed, source, target = pack(given, rows=15, layout="panels"), torch.randint(0, 11, (5, 4)), torch.randint(0, 11, (5, 3))
    parts, real = [], torch.cat
    monkeypatch.setattr(layers, "ROWS", rows)
    monkeypatch.setattr(torch, "cat", lambda tensors: parts.append(len(tensors)) or real(tensors))

    found = transformer(source, target, packed, TWO_HEADS)

    torch.testing.assert_close(found, transformer(source, target, given, TWO_HEADS))
    assert parts == {1: [5, 5], 7: [5, 3], 9: [3, 2], 100: []}[rows]
