"""Attention of the tuned tier: in panels at every remainder, exact about what is hidden, and some sequences at a time."""

import pytest
import torch

from optimized import tuned
from optimized.decoder import decoder, decoder_layer
from optimized.encoder import encoder
from optimized.generation import generate
from optimized.initialisation import initialise
from optimized.mask import padding_mask
from optimized.packing import pack
from optimized.parameters import Architecture, map_tensors
from optimized.transformer import transformer
from optimized.tuned import layers
from properties.error_budget.budgets import budget
from properties.implementations.weights import as_float64, mapped, nested

DTYPES = [dtype for dtype in tuned.dtypes() if dtype.is_floating_point]
TWO_HEADS = Architecture(h=2)
pytestmark = pytest.mark.skipif(bool(tuned.missing()), reason=tuned.missing())


def random(*shape, seed=0):
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def allowed(step, dtype, *given, **parameters):
    """The budget of a step of these tensors in a dtype."""
    arrays = [X if X is None else X.numpy() if X.dtype is torch.bool else as_float64(X) for X in given]
    exact = {name: mapped(as_float64, nested(part)) for name, part in parameters.items()}
    return budget(step, *arrays, dtype=str(dtype).removeprefix("torch."), h=TWO_HEADS.h, **exact)


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
    """Of queries in a tile, keys in a panel or a line of scores, and features."""
    layer = map_tensors(lambda W: W.to(dtype), initialise(0, vocab=3, d_model=features, d_ff=4, layers=1).decoder[0])
    X, M = random(2, n, features).to(dtype), random(2, m, features, seed=1).to(dtype)

    found = decoder_layer(X, M, pack(layer, rows=n, layout="panels"), TWO_HEADS)

    score = allowed("decoder_layer", dtype, X, M, layer=layer).score(as_float64(found))
    assert score.budget_used <= 1, str(score)


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


def padded(*lengths):
    """A mask of sources of these lengths, filled up to the longest."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_behind_a_source_is_one_call_too_and_changes_no_bit(dtype, monkeypatch):
    """Of what real tokens become in the encoder, and of what a decoder makes of them, in some sequences at a time as well."""
    given = map_tensors(lambda W: W.to(dtype), initialise(0, vocab=11, d_model=64, d_ff=6, layers=2))
    packed, real = pack(given, rows=9, layout="panels"), padded(3, 40, 1, 17)
    monkeypatch.setattr(layers, "ROWS", 80)
    X, M, mask = random(4, 5, 64).to(dtype), random(4, 40, 64, seed=1).to(dtype), padding_mask(real)
    stack = layers.stack_of(packed.decoder, TWO_HEADS)

    encoded, decoded = encoder(M, packed.encoder, TWO_HEADS, mask), decoder(X, M, packed.decoder, TWO_HEADS, None, mask)

    assert stack.lengths(X, mask, M=M).tolist() == [3, 40, 1, 17]
    scores = (
        allowed("encoder", dtype, M, mask, layers=given.encoder).score(as_float64(encoded)),
        allowed("decoder", dtype, X, M, None, mask, layers=given.decoder).score(as_float64(decoded)),
    )
    assert max(score.budget_used for score in scores) <= 1, str(scores)
    M[~real] = torch.nan
    assert torch.equal(encoder(M, packed.encoder, TWO_HEADS, mask)[real], encoded[real])
    assert torch.equal(decoder(X, M, packed.decoder, TWO_HEADS, None, mask), decoded)


def test_generation_from_sources_of_different_length_is_the_same_in_one_call():
    """Greedy decoding, where rows end and leave too."""
    given = initialise(3, vocab=5, d_model=64, d_ff=16, layers=2)
    packed, real = pack(given, rows=6, layout="panels"), padded(2, 9, 1, 5, 9, 4)
    source = torch.randint(0, 5, real.shape, generator=torch.Generator().manual_seed(0))

    written = [generate(source, model, TWO_HEADS, bos=0, eos=1, length=12, source_mask=real) for model in (given, packed)]

    assert torch.equal(*written)
    assert len(written[0].unique(dim=0)) > 1


@pytest.mark.parametrize("real", [[True, False, True], [False, True, True], [False, False, False]])
def test_other_masks_go_step_by_step(real):
    """Padding before or between the tokens, no token at all, and a mask of each query."""
    packed = pack(initialise(0, vocab=5, d_model=8, d_ff=6, layers=1), rows=3, layout="panels")
    stack, X = layers.stack_of(packed.encoder, TWO_HEADS), random(1, 3, 8)

    assert stack.lengths(X).tolist() == [3]
    assert stack.lengths(X, torch.tensor(real)[None, None, None]) is None
    assert stack.lengths(X, torch.ones(1, 1, 3, 3, dtype=torch.bool)) is None
    assert stack.lengths(X, None, torch.ones(1, 1, 1, 3, dtype=torch.bool)) is None
