"""The oracle's backward: against its own forward by complex steps, and against PyTorch's autograd in float64."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from properties.evaluation.derivatives import Case, Checked, by_complex_steps, cases, checked, complex_oracle, flat
from reference.backward.attention import attention_backward
from reference.backward.embedding import embedding_backward
from reference.backward.feed_forward import feed_forward_backward
from reference.backward.multi_head import multi_head_backward
from reference.backward.residual_norm import layer_norm_backward
from reference.backward.softmax import softmax_backward
from reference.feed_forward import gelu, gelu_tanh
from reference.parameters import FeedForwardParameters, MultiHeadParameters, NormParameters

LARGEST = 1e-13  # error of an entry, as a part of the largest of its gradient
STEPS = sorted({case.step for case in cases()})
RNG = np.random.default_rng(3)


@cache
def results() -> dict[str, list[Checked]]:
    """All cases, checked once."""
    found = {step: [] for step in STEPS}
    for case in cases():
        found[case.step].append(checked(case))
    return found


@pytest.mark.parametrize("step", STEPS)
def test_backward_is_the_derivative_of_forward(step):
    """Each entry of each gradient, for sizes with every axis at 1, ties, one key in sight, masked rows, constant rows."""
    worst = max(results()[step], key=lambda result: result.worst)

    assert worst.worst <= LARGEST, f"{worst.case.label}: {worst.worst}"


def test_every_part_of_the_oracle_that_learns_has_a_backward():
    """And all of its arguments are looked at: 20,000 entries in 372 cases."""
    assert {"attention", "softmax", "multi_head", "layer_norm", "feed_forward", "embedding", "output_projection"} <= set(STEPS)
    assert {"encoder_layer", "decoder_layer", "transformer"} <= set(STEPS)
    assert sum(len(each) for each in results().values()) >= 372
    assert sum(result.entries for each in results().values() for result in each) >= 20_000


def test_complex_steps_see_what_is_wrong():
    """A gradient without the sum of its row is far off."""
    case = next(case for case in cases() if case.step == "softmax" and case.label.startswith("3×5, no mask, plain"))

    def without_sums(dP: np.ndarray, *, scores: np.ndarray) -> dict[str, np.ndarray]:
        return {"scores": case.forward(scores=scores) * dP}

    assert checked(Case("softmax", "wrong", case.arrays, case.forward, without_sums)).worst > 0.01


def test_complex_steps_know_a_derivative():
    """Of x³ at 2 it is 12, to the last digit."""
    cube = Case("cube", "", {"x": np.array([2.0])}, lambda x: x**3, lambda dY, x: {})

    with complex_oracle():
        assert by_complex_steps(cube, "x", np.ones(1)) == 12.0


# ---- against autograd ----


def drawn(*shape: int) -> np.ndarray:
    """Numbers that requires_grad is asked of."""
    return RNG.standard_normal(shape)


def autograd(forward, dY: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """The gradients of forward's arguments."""
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    found = torch.autograd.grad(forward(*leaves), leaves, torch.tensor(dY))
    return [each.numpy() for each in found]


def assert_same(got, expected) -> None:
    """To what two float64 computations may differ by."""
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0.0) <= LARGEST * max(np.abs(other).max(initial=0.0), 1.0)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_backward_is_autograds(masked):
    """Through scaled_dot_product_attention, with and without a mask."""
    Q, K, V, dO = drawn(5, 4), drawn(7, 4), drawn(7, 3), drawn(5, 3)
    mask = np.tri(5, 7, 1, dtype=bool) if masked else None

    def forward(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(Q[None], K[None], V[None], None if mask is None else torch.tensor(mask))[0]

    for kept in ("weights", "log_sums"):
        assert_same(attention_backward(dO, Q, K, V, mask, kept), autograd(forward, dO, Q, K, V))


def test_a_fully_masked_row_neither_gives_nor_gets():
    """Its dQ is 0, and keys and values learn from the other rows alone."""
    Q, K, V, dO = drawn(3, 4), drawn(5, 4), drawn(5, 2), drawn(3, 2)
    mask = np.array([[True] * 5, [False] * 5, [True] * 5])

    dQ, dK, dV = attention_backward(dO, Q, K, V, mask)
    others = attention_backward(dO[[0, 2]], Q[[0, 2]], K, V)

    assert not dQ[1].any()
    assert_same((dQ[[0, 2]], dK, dV), others)


def test_softmax_backward_is_autograds_and_its_rows_sum_to_zero():
    """A score of −∞ gets 0 exactly."""
    dP, scores = drawn(4, 6), drawn(4, 6)
    scores[:, 2] = -np.inf

    got = softmax_backward(dP, scores)

    assert_same([got], autograd(lambda s: torch.softmax(s, -1), dP, scores))
    assert not got[:, 2].any()
    assert np.abs(got.sum(axis=-1)).max() <= LARGEST


def test_layer_norm_backward_is_autograds():
    """dX, dgain and dbias."""
    X, gain, bias, dY = drawn(6, 5), drawn(5), drawn(5), drawn(6, 5)

    dX, of_norm = layer_norm_backward(dY, X, NormParameters(gain, bias), 1e-3)

    expected = autograd(lambda X, gain, bias: F.layer_norm(X, (5,), gain, bias, 1e-3), dY, X, gain, bias)
    assert_same((dX, of_norm.gain, of_norm.bias), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_feed_forward_backward_is_autograds(activation):
    """dX and the gradients of both maps."""
    weights = {"W_1": drawn(3, 6), "b_1": drawn(6), "W_2": drawn(6, 3), "b_2": drawn(3)}
    X, dY = drawn(4, 3), drawn(4, 3)
    functions = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}

    dX, of_maps = feed_forward_backward(dY, X, FeedForwardParameters(**weights), activation)

    expected = autograd(lambda X, W, b, U, c: functions[activation](X @ W + b) @ U + c, dY, X, *weights.values())
    assert_same((dX, *flat(of_maps).values()), expected)


def test_relu_passes_nothing_at_zero_as_in_autograd():
    """Where max(0, ·) has no slope, a convention speaks: 0."""
    one = {"W_1": np.eye(3), "b_1": np.zeros(3), "W_2": np.eye(3), "b_2": np.zeros(3)}
    X, dY = np.array([[0.0, -1.0, 1.0]]), np.ones((1, 3))

    dX, _ = feed_forward_backward(dY, X, FeedForwardParameters(**one))

    assert dX.tolist() == [[0.0, 0.0, 1.0]] == autograd(F.relu, dY, X)[0].tolist()


@pytest.mark.parametrize("slope", [gelu, gelu_tanh])
def test_gelu_backward_is_finite_far_out(slope):
    """At ±40, where exponentials underflow, the slope is 0 and 1."""
    one = {"W_1": np.eye(2), "b_1": np.zeros(2), "W_2": np.eye(2), "b_2": np.zeros(2)}

    dX, _ = feed_forward_backward(np.ones((1, 2)), np.array([[-40.0, 40.0]]), FeedForwardParameters(**one), slope.__name__)

    assert dX.tolist() == [[0.0, 1.0]]


def test_embedding_backward_adds_up_repeated_tokens():
    """As autograd does; a token that does not occur gets 0."""
    tokens, table, dX = np.array([2, 0, 2, 2]), drawn(4, 3), drawn(4, 3)

    got = embedding_backward(dX, tokens, table)

    expected = autograd(lambda table: F.embedding(torch.tensor(tokens), table) * 3**0.5, dX, table)
    assert_same([got], expected)
    assert not got[[1, 3]].any()


def test_multi_head_backward_is_autograds():
    """Self-attention of two heads through `nn.functional.multi_head_attention_forward`'s own matrices: both uses of X add up."""
    d, n, h = 4, 3, 2
    names = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
    weights = dict(zip(names, [drawn(d, d) for _ in range(4)] + [drawn(d) for _ in range(4)], strict=True))
    X, dY = drawn(n, d), drawn(n, d)

    def forward(X: Tensor, *parameters: Tensor) -> Tensor:
        W = dict(zip(names, parameters, strict=True))
        in_weight = torch.cat([W["W_Q"].T, W["W_K"].T, W["W_V"].T])
        in_bias = torch.cat([W["b_Q"], W["b_K"], W["b_V"]])
        rows = X[:, None]
        said = F.multi_head_attention_forward(
            *(rows, rows, rows, d, h, in_weight, in_bias, None, None, False, 0.0, W["W_O"].T, W["b_O"]), need_weights=False
        )
        return said[0][:, 0]

    dX, dM, of_heads = multi_head_backward(dY, X, X, MultiHeadParameters(**weights), h)

    assert_same((dX + dM, *flat(of_heads).values()), autograd(forward, dY, X, *weights.values()))
