"""The loss the fast implementation learns from, the task it learns, and the example that trains it, start to end."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from optimized.initialisation import initialise
from optimized.parameters import tensors
from optimized.training import label_smoothed_loss, trainable
from properties.assertions import assert_at_most
from properties.copy_reverse import BOS, COPY, EOS, FIRST_WORD, REVERSE, Task, draw, is_held_out
from properties.error_budget.budgets import sum_bound
from properties.implementations.weights import flat, load

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_copy_reverse.py"
LOGITS = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
WORDS = torch.tensor([[0, 4, 2], [1, 1, 3]])
REAL = torch.tensor([[True, True, False], [True, False, False]])


def by_the_formula(logits, tokens, real, smoothing):
    """−Σ q log softmax, averaged over the real tokens, in NumPy."""
    logits = logits.numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    q = (1 - smoothing) * np.eye(logits.shape[-1])[tokens.numpy()] + smoothing / logits.shape[-1]
    return -((q * log_p).sum(axis=-1) * real.numpy()).sum() / real.numpy().sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("real", [None, REAL], ids=["all tokens", "padded"])
def test_the_loss_is_the_papers(smoothing, real):
    """Cross entropy with 1 − ε on the right token and ε spread over all; tokens that only fill up are not counted."""
    got = label_smoothed_loss(LOGITS, WORDS, real, smoothing).item()

    exact = by_the_formula(LOGITS, WORDS, torch.ones_like(REAL) if real is None else real, smoothing)
    assert_at_most(abs(got - exact), sum_bound(100, "float64", abs(exact)), "|loss − formula|")


def test_padding_tokens_have_no_gradient():
    """Their logits get a gradient of exactly zero, whatever they are; those of real tokens do not."""
    logits = LOGITS.clone().requires_grad_()

    label_smoothed_loss(logits, WORDS, REAL).backward()

    assert torch.equal(logits.grad[~REAL], torch.zeros(3, 5, dtype=torch.float64))
    assert (logits.grad[REAL] != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_loss_of_narrow_logits_is_taken_in_float32(dtype):
    """A mean over many tokens in bfloat16 would stop to grow."""
    assert label_smoothed_loss(LOGITS.to(dtype), WORDS).dtype == torch.float32


def test_a_trainable_copy_collects_gradients_and_the_original_does_not():
    """Every tensor is a leaf of its own."""
    original = initialise(0, vocab=5, d_model=4, d_ff=3, layers=1)

    copy = trainable(original)

    assert all(tensor.requires_grad and tensor.is_leaf for tensor in tensors(copy))
    assert not any(tensor.requires_grad for tensor in tensors(original))
    assert len(tensors(copy)) == len(flat(original))


# The task -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_the_target_is_the_sequence_copied_or_reversed_and_its_end(held_out):
    """Row by row, by the definition; held out sequences when asked for, others otherwise."""
    batch = draw(Task(tokens=3, longest=4), 200, np.random.default_rng(1), held_out=held_out)

    for source, real, target, given, counts in zip(
        batch.source, batch.source_mask, batch.target, batch.given, batch.target_mask, strict=True
    ):
        order, *sequence = source[real]
        right = sequence if order == COPY else sequence[::-1]
        assert order in (COPY, REVERSE)
        assert all(FIRST_WORD <= token < FIRST_WORD + 3 for token in sequence)
        assert list(target) == right + [EOS] * (5 - len(right))
        assert list(given) == [BOS, *target[:-1]]
        assert list(counts) == [True] * (len(right) + 1) + [False] * (4 - len(right))
        assert is_held_out(np.array(sequence)) == held_out
    assert set(batch.lengths) == {1, 2, 3, 4}


def test_lengths_beyond_the_longest_can_be_asked_for():
    """A study asks for more tokens than were taught."""
    assert set(draw(Task(longest=2), 5, np.random.default_rng(0), length=6).lengths) == {6}


def test_questions_are_the_same_in_batches_of_any_width():
    """A model is taught short sequences in narrow batches, and asked in wide ones."""
    narrow, wide = (draw(Task(longest=k), 100, np.random.default_rng(0), length=2) for k in (2, 8))

    assert narrow.source.shape != wide.source.shape
    assert narrow.questions() == wide.questions()
    assert len(narrow.questions()) > 1


# The example ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    """The example's own functions."""
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.long
def test_the_example_trains_a_model_that_is_right_and_agrees_with_the_oracle(example, tmp_path, capsys):
    """As a user runs it: at least 990 of 1000 unseen sequences right, the oracle's tokens the same on 100, the weights saved."""
    code = example["main"](["--save", str(tmp_path / "model.safetensors")])

    output = capsys.readouterr().out
    right = int(output.split(" of 1000 sequences it never saw")[0].split()[-1])
    assert code == 0, output
    assert right >= 990
    assert "the oracle writes 100 of 100 alike" in output
    assert "seed 1, 900 steps" in output
    parameters, choices = load(tmp_path / "model.safetensors")
    assert choices["h"] == 4
    assert len(flat(parameters)) == 88


def test_a_model_that_has_not_learned_makes_the_example_fail(example, capsys, monkeypatch):
    """Two steps are not enough, and it says so with its exit code; run twice, it prints the same. Of fewer sequences."""
    monkeypatch.setitem(example["main"].__globals__, "ASKED", 100)
    monkeypatch.setitem(example["SIZES"], "small", replace(example["SIZES"]["small"], asked_of_the_oracle=10))
    lines = []
    for _ in range(2):
        assert example["main"](["--seed", "3", "--steps", "2"]) == 1
        lines.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("trained in")])

    assert lines[0] == lines[1]
    assert lines[0][0] == "seed 3, 2 steps of 64 sequences"


@pytest.fixture
def tiny(example, monkeypatch):
    """The base model taught as it is, but of a size that is nothing; 100 sequences asked, 3 of them of the oracle."""
    size = replace(example["SIZES"]["base"], d_model=8, d_ff=12, layers=1, h=2, asked_of_the_oracle=3)
    monkeypatch.setitem(example["main"].__globals__, "ASKED", 100)
    monkeypatch.setitem(example["SIZES"], "base", size)
    return size


def test_the_base_model_is_taught_longer_sequences_once_it_has_learned_the_shorter_ones(example, tiny, capsys, monkeypatch):
    """Where every loss counts as learned, token by token up to the longest; where none does, as long as in the beginning."""
    monkeypatch.setitem(example["main"].__globals__, "LEARNED", 100.0)
    assert example["main"](["--size", "base", "--steps", "40"]) == 1
    longer = [line for line in capsys.readouterr().out.splitlines() if "tokens from here" in line]
    monkeypatch.setitem(example["main"].__globals__, "LEARNED", 0.0)
    _, taught = example["train"](1, replace(tiny, steps=8))

    assert [int(line.split()[4]) for line in longer] == [3, 4, 5, 6, 7, 8]
    assert max(len(question) for question in taught) == 8 * (1 + tiny.longest)


def test_the_branches_of_the_base_model_begin_small(example, tiny):
    """What is added to the residual, the outputs of attention and of the feed-forward, by that factor; all else as it is drawn."""
    small, usual = (flat(example["initial"](1, size)) for size in (tiny, replace(tiny, branches=1.0)))

    added = {name for name in usual if name.endswith(("W_O", "W_2"))}
    assert len(added) == 5
    assert all(torch.equal(small[name], usual[name] * (tiny.branches if name in added else 1.0)) for name in usual)


def test_the_base_model_computes_in_bfloat16_and_learns_in_float32(example, tiny):
    """Weights and gradients; the loss differs from that of float32 by rounding."""
    parameters = example["initial"](1, tiny)
    batch = draw(Task(), 4, np.random.default_rng(0))

    loss = example["loss_on"](batch, parameters, tiny)
    loss.backward()

    exact = example["loss_on"](batch, parameters, replace(tiny, dtype=torch.float32))
    assert {W.grad.dtype for W in tensors(parameters)} == {W.dtype for W in tensors(parameters)} == {torch.float32}
    assert 0 < abs(loss.item() - exact.item()) < 0.1


@pytest.mark.parametrize("arguments", [["--seed", "one"], ["--steps", ""], ["--size", "large"], ["--sav"]])
def test_a_wrong_option_is_a_usage_error(example, arguments):
    """Exit code 2 and no traceback."""
    with pytest.raises(SystemExit) as stopped:
        example["main"](arguments)

    assert stopped.value.code == 2
