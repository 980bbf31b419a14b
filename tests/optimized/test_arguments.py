"""What the fast implementation refuses, in one line that names the argument, what was expected and what came."""

import pytest
import torch

from optimized.embedding import embedding
from optimized.generation import Writer, generate
from optimized.initialisation import initialise
from optimized.multi_head import split_heads
from optimized.parameters import Architecture
from optimized.positional_encoding import positional_encoding
from optimized.training import label_smoothed_loss
from optimized.transformer import decode, encode, transformer

SMALL = initialise(0, vocab=5, source_vocab=6, d_model=4, d_ff=3, layers=1, dtype=torch.float64)
TWO_HEADS = Architecture(h=2)
SOURCE = torch.tensor([[1, 2, 3], [3, 2, 1]])
NO_WORDS = torch.zeros(2, 0, dtype=torch.int64)


def writer(tokens=0, source=SOURCE):
    """A writer that has read so many tokens."""
    begun = Writer(source, SMALL, TWO_HEADS)
    if tokens:
        begun.prefill(torch.zeros(len(source), tokens, dtype=torch.int64))
    return begun


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: embedding(torch.tensor([[0, 6]]), SMALL.source_embedding), "tokens: expected ids from 0 to 5 .* got 6"),
        (lambda: embedding(torch.tensor([-1]), SMALL.source_embedding), "tokens: expected ids from 0 to 5 .* got -1"),
        (lambda: positional_encoding(torch.arange(3), 5), "d_model: expected an even number of features .* got 5"),
        (lambda: positional_encoding(torch.arange(3), 0), "d_model: expected an even number of features .* got 0"),
        (lambda: split_heads(torch.zeros(1, 2, 4), 3), "h: expected a number of heads that divides 4 features, got 3"),
        (lambda: encode(NO_WORDS, SMALL, TWO_HEADS), "source: expected at least one token, got an empty sequence"),
        (lambda: decode(NO_WORDS, torch.zeros(2, 3, 4), SMALL, TWO_HEADS), "target: expected at least one token"),
        (lambda: transformer(SOURCE, SOURCE, SMALL, Architecture(h=3)), "h: expected a number of heads that divides 4 features"),
        (lambda: generate(SOURCE, SMALL, TWO_HEADS, bos=7, eos=0, length=2), "tokens: expected ids from 0 to 4 .* got 7"),
        (lambda: initialise(0, vocab=0), "vocab: expected at least 1, got 0"),
        (lambda: Architecture(h=0), "h: expected at least one head, got 0"),
        (lambda: Architecture(norm="middle"), "norm: expected 'post' or 'pre', got 'middle'"),
        (lambda: Architecture(activation="swish"), "activation: expected 'relu', 'gelu' or 'gelu_tanh', got 'swish'"),
        (
            lambda: label_smoothed_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2).long(), torch.zeros(1, 2).bool()),
            "real: expected at",
        ),
        (lambda: writer().prefill(NO_WORDS), "tokens: expected at least one token, got an empty sequence"),
        (lambda: writer().step(torch.tensor([1])), "tokens: expected a row for each of 2 sources, got 1"),
        (lambda: writer(2).rollback(3), r"length: expected 0 to 2 \(the tokens read so far\), got 3"),
        (lambda: writer(2).rollback(-1), r"length: expected 0 to 2 \(the tokens read so far\), got -1"),
        (lambda: writer(1).reorder(torch.tensor([0, 2])), r"rows: expected numbers from 0 to 1 .* got \[0, 2\]"),
        (lambda: writer(1).join(writer(2)), "other: expected a cache that has read 1 tokens, got one that has read 2"),
        (lambda: writer(1).join(writer(1, SOURCE[:, :2])), "other: expected sources filled up to 3 tokens, got 2"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(call, complaint):
    """Nothing is computed from it, and nothing wraps around."""
    with pytest.raises(ValueError, match=complaint) as caught:
        call()

    assert "\n" not in str(caught.value)
