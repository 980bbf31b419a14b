"""Writing with a cache: it grows, rows come and go, and every answer is the whole model's; a row ends by itself."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from optimized.attention import empty_hidden
from optimized.generation import Writer, generate
from optimized.initialisation import initialise
from optimized.parameters import Architecture, map_tensors
from optimized.positional_encoding import add_positions, positional_encoding
from properties.assertions import assert_at_most, assert_rounding_only
from properties.implementations.impl import Impl
from properties.implementations.optimized import Optimized
from properties.implementations.weights import as_float64, mapped, nested

ARCHITECTURE = Architecture(h=2, norm="pre", activation="gelu")
PARAMETERS = initialise(3, vocab=7, source_vocab=6, d_model=8, d_ff=5, layers=2, dtype=torch.float64)
SOURCE = torch.tensor([[1, 2, 3], [5, 0, 0], [4, 4, 1]])
REAL = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
WORDS = torch.tensor([[1, 2, 3, 4, 5, 6, 0], [6, 5, 4, 3, 2, 1, 0], [0, 0, 1, 1, 2, 2, 3]])


def assert_the_whole_model_s(logits, source, real, tokens):
    """These logits are what the oracle says of the last of `words`, but for rounding."""
    arguments = [X.numpy() for X in (source, tokens, real)]
    model = {"parameters": mapped(as_float64, nested(PARAMETERS)), "h": 2, "norm": "pre", "activation": "gelu"}
    whole = Impl(Optimized()).transformer(*arguments, **model).copy()
    whole[:, -1] = logits.numpy()
    assert_rounding_only(Impl(Optimized()), "transformer", whole, *arguments, **model)


def test_rows_join_and_leave_and_the_rest_is_not_disturbed():
    """Two rows read four tokens, a third joins, the first leaves, the rest read on beyond the room there was at first."""
    two = Writer(SOURCE[:2], PARAMETERS, ARCHITECTURE, REAL[:2], capacity=1)
    two.prefill(WORDS[:2, :3])
    two.step(WORDS[:2, 3])
    third = Writer(SOURCE[2:], PARAMETERS, ARCHITECTURE, REAL[2:], capacity=9)
    third.prefill(WORDS[2:, :4])

    two.join(third)
    two.leave(torch.tensor([0]))
    logits = two.prefill(WORDS[1:, 4:7])

    assert two.length == 7
    assert third.length == 4
    assert_the_whole_model_s(logits[:, -1], SOURCE[1:], REAL[1:], WORDS[1:])


def test_a_copy_goes_its_own_way():
    """What the copy reads, takes back and reorders, the first never learns of."""
    first = Writer(SOURCE, PARAMETERS, ARCHITECTURE, REAL)
    first.prefill(WORDS[:, :4])
    copy = first.copy()

    copy.rollback(2)
    copy.prefill(WORDS[:, 4:6])
    copy.rollback(2)
    copy.reorder(torch.tensor([2, 2, 0]))
    backwards = copy.prefill(WORDS[[2, 2, 0]][:, 2:5])

    assert_the_whole_model_s(first.step(WORDS[:, 4]), SOURCE, REAL, WORDS[:, :5])
    assert_the_whole_model_s(backwards[:, -1], SOURCE[[2, 2, 0]], REAL[[2, 2, 0]], WORDS[[2, 2, 0]][:, :5])


def test_after_a_reset_nothing_is_left_of_the_former_sources():
    """Other sources, of another number and width: the answers are a new writer's, bit for bit."""
    used = Writer(SOURCE, PARAMETERS, ARCHITECTURE, REAL)
    used.prefill(WORDS)
    used.reset(SOURCE[:1, :2])
    new = Writer(SOURCE[:1, :2], PARAMETERS, ARCHITECTURE)

    assert torch.equal(used.prefill(WORDS[:1]), new.prefill(WORDS[:1]))


def test_a_writer_collects_no_gradients():
    """Writing with parameters under training leaves no graph behind."""
    writer = Writer(SOURCE, map_tensors(lambda W: W.clone().requires_grad_(), PARAMETERS), ARCHITECTURE)

    assert not writer.step(WORDS[:, 0]).requires_grad


def shifted_to(token, lead):
    """The parameters with a bias that lets `word` win by far."""
    b_out = torch.zeros(7, dtype=torch.float64)
    b_out[token] = lead
    parameters = nested(PARAMETERS) | {"b_out": b_out}
    return type(PARAMETERS)(**{name: parameters[name] if name == "b_out" else getattr(PARAMETERS, name) for name in parameters})


def test_generation_stops_when_every_row_has_ended(monkeypatch):
    """The end token wins at once: one token is written, the rest is filled up, and nothing more is computed."""
    read, step = [], Writer.step
    monkeypatch.setattr(Writer, "step", lambda writer, tokens: read.append(tokens) or step(writer, tokens))

    written = generate(SOURCE, shifted_to(6, 1e6), ARCHITECTURE, bos=0, eos=6, length=4, source_mask=REAL)

    assert torch.equal(written, torch.full((3, 4), 6))
    assert len(read) == 1


def test_rows_that_have_ended_leave_once_they_are_half(monkeypatch):
    """One row writes its token once, one twice, and one for ever: behind the third token that one is computed alone."""
    read, step = [], Writer.step

    def scripted(writer, tokens):
        step(writer, tokens)
        read.append(len(tokens))
        following = (
            torch.where((tokens < writer.length) & (tokens < 3), 6, tokens)
            if writer.length > 1
            else torch.arange(1, len(tokens) + 1)
        )
        return torch.nn.functional.one_hot(following, 7).double()

    monkeypatch.setattr(Writer, "step", scripted)

    written = generate(SOURCE, PARAMETERS, ARCHITECTURE, bos=0, eos=6, length=5, source_mask=REAL)

    assert written.tolist() == [[1, 6, 6, 6, 6], [2, 2, 6, 6, 6], [3, 3, 3, 3, 3]]
    assert read == [3, 3, 3, 1, 1]


@pytest.mark.parametrize("padded", [False, True])
def test_a_step_copies_nothing_of_what_the_source_offers(padded, monkeypatch):
    """Hidden keys are emptied when writing begins, and no more after that; without padding there is nothing to hide."""
    emptied = []
    for module in ("cache", "attention"):
        place = f"optimized.{module}.empty_hidden"
        monkeypatch.setattr(place, lambda K, V, mask, real=empty_hidden: emptied.append(K.shape) or real(K, V, mask))
    writer = Writer(SOURCE, PARAMETERS, ARCHITECTURE, REAL if padded else torch.ones_like(REAL))
    begun = len(emptied)

    for i in range(3):
        writer.step(WORDS[:, i])

    assert begun == (4 if padded else 2)  # two layers of the encoder, and two of the cache
    assert len(emptied) == begun


def test_generation_of_length_zero_is_empty():
    """Length 0 is an ordinary case."""
    assert generate(SOURCE, PARAMETERS, ARCHITECTURE, bos=0, eos=6, length=0).shape == (3, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_seed_is_the_same_model_at_every_dtype(dtype):
    """Drawn once in float64 and rounded once; another seed is another model."""
    here = initialise(3, vocab=7, source_vocab=6, d_model=8, d_ff=5, layers=2, dtype=dtype)

    assert torch.equal(here.encoder[1].feed_forward.W_1, PARAMETERS.encoder[1].feed_forward.W_1.to(dtype))
    assert not torch.equal(initialise(4, vocab=7, d_model=8, d_ff=5, layers=1).target_embedding, here.target_embedding.float())


def test_matrices_begin_within_xavier_s_limits_and_reach_for_them():
    """Uniform in ±√(6 / (rows + columns)): no entry beyond, and of 40 × 30 some within a hundredth of both ends."""
    W_1 = initialise(0, vocab=3, d_model=40, d_ff=30, layers=1, dtype=torch.float64).encoder[0].feed_forward.W_1 / np.sqrt(6 / 70)

    assert_at_most(float(W_1.abs().max()), 1.0, "largest entry")
    assert float(W_1.max()) > 0.99
    assert float(W_1.min()) < -0.99


def test_positions_that_were_traced_are_not_kept():
    """A tensor without numbers would be added to those of the next call."""
    X = torch.zeros(2, 3, 6)
    with FakeTensorMode():
        add_positions(torch.zeros(2, 3, 6))

    torch.testing.assert_close(add_positions(X)[0], positional_encoding(torch.arange(3), 6, X.dtype))
