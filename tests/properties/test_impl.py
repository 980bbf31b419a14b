"""What a property is protected from: implementations that answer with the wrong thing, or leave something broken behind."""

import numpy as np
import pytest
import torch

from properties.implementations.impl import Impl
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError


class Candidate:
    """An implementation of softmax and embedding whose body each test chooses."""

    name, arrays, dtypes, conventions = "candidate", "torch", ("float32", "bfloat16"), None
    steps = frozenset({"softmax", "embedding"})

    def __init__(self, body) -> None:
        self.softmax = self.embedding = body


SCORES = np.array([[0.0, 1.0], [2.0, -1.0]])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (lambda scores: scores[0], "expected a result of shape (2, 2), got (2,)"),
        (lambda scores: scores.double(), "expected a result of dtype float32, got float64"),
        (lambda scores: scores.numpy(), "expected a torch.Tensor of dtype float32, got numpy.ndarray"),
        (lambda scores: scores.add_(1), "changed its input scores in place"),
        (lambda scores, temperature: scores, "raised TypeError"),
        (lambda scores: scores @ torch.zeros(3, 3), "raised RuntimeError"),
        (lambda scores: 1 / 0 * scores, "raised ZeroDivisionError"),
        (lambda scores: scores.nothing_like_it, "raised AttributeError"),
    ],
)
def test_a_wrong_answer_is_an_error_that_says_what_was_expected(body, complaint):
    """Wrong shape, dtype or type, a changed input and an exception are each named in one line."""
    with pytest.raises(ImplementationError, match=r"candidate\.softmax") as caught:
        Impl(Candidate(body), "float32").softmax(SCORES)

    assert complaint in str(caught.value)


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_of_the_vocabulary_is_an_error_of_the_implementation(token):
    """Whatever looks it up afterwards would otherwise fail in its place."""

    class Writer:
        name, arrays, dtypes, conventions, steps = "writer", "numpy", ("float64",), None, frozenset({"generation"})

        def generation(self, source, source_mask=None, *, parameters, bos, eos, length, h):
            return np.full((len(source), length), token)

    with pytest.raises(ImplementationError, match=f"expected tokens of the vocabulary, 0 to 4, got {token}"):
        Impl(Writer()).generation(np.array([[0]]), parameters={"target_embedding": np.zeros((5, 2))}, bos=0, eos=1, length=2, h=1)


def test_numbers_the_dtype_cannot_hold_are_refused_before_the_call():
    """A property that hands over unrepresentable numbers asks two different questions: that is a fault of the property."""
    with pytest.raises(ValueError, match="not representable in bfloat16"):
        Impl(Candidate(torch.softmax), "bfloat16").softmax(SCORES + 1 / 3)


def test_changing_a_nested_or_integer_input_is_noticed():
    """Token ids and tables are watched as well as plain matrices."""

    def shifts_tokens(tokens, *, table, scale=True):
        return table[tokens.sub_(1)]

    with pytest.raises(ImplementationError, match="changed its input"):
        Impl(Candidate(shifts_tokens), "float32").embedding(np.array([[1, 2]]), table=np.ones((3, 2)))


@pytest.mark.parametrize(
    ("first", "wrong", "tokens"),
    [
        (lambda: 1 / 0, ImplementationError, "raised ZeroDivisionError: division by zero"),
        (lambda: exit("no licence"), ImplementationCrash, "exited with code 1"),  # noqa: PLR1722 (as a script does)
        (lambda: torch.full((1, 2), -torch.inf), ClaimBroken, "-inf"),
    ],
)
def test_an_answer_to_a_probe_that_does_not_come_again_is_told(first, wrong, tokens):
    """No property sees the answers that show a convention: a first call that goes wrong would be lost with them."""
    calls = []

    def softmax(scores):
        calls.append(scores)
        return first() if len(calls) == 1 else torch.softmax(scores, dim=-1).nan_to_num(0.0)

    adapter = Candidate(softmax)
    adapter.steps = frozenset({"softmax"})

    with pytest.raises(wrong, match="softmax of a row of −∞, asked for twice: ") as caught:
        _ = Impl(adapter, "float32").conventions

    assert tokens in str(caught.value)
    assert Impl(adapter, "float32").conventions.fully_masked_softmax == "zeros"
