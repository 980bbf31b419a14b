"""Calls of users' kernels, read as the step's questions: by names, by places, in other shapes, arrays and conventions."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from properties.evaluation.users_tests.answering import as_the_kernel, in_its_axes
from properties.evaluation.users_tests.reading import Signature, Unread, by_convention, fitted, fully_masked, question
from properties.evaluation.users_tests.stand_ins import named, positional

Q, K, V = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 6)
SDPA = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"]


def signature(parameters, step="attention", **conventions):
    """Of a kernel with these parameters."""
    return Signature(step, positional(step), named(step), parameters, conventions)


@pytest.mark.parametrize("parameters", [["Q", "K", "V", "mask"], ["a", "b", "c", "d"], SDPA, None])
def test_arguments_are_read_by_their_names_or_places(parameters):
    """As `verify` calls a kernel, and as libraries call theirs."""
    mask = torch.ones(3, 5, dtype=torch.bool)

    asked = question(signature(parameters), (Q, K, V, mask), {})

    assert all(asked.named[name] is value for name, value in zip("QKV", (Q, K, V), strict=True))
    assert asked.named["mask"] is mask


def test_options_of_libraries_are_those_of_the_step():
    """What asks for nothing is left out."""
    asked = question(signature(SDPA), (Q, K, V), {"dropout_p": 0.0, "is_causal": True, "scale": 0.5, "enable_gqa": True})

    assert {name: value for name, value in asked.named.items() if name not in "QKV"} == {"causal": True, "scale": 0.5}
    assert signature(SDPA).options(["causal", "scale", "bias"]) == ["causal", "scale"]


@pytest.mark.parametrize("given", [{"broadcast_dropout": True}, {"softmax_precision": 10}, {"qk_matmul_output_mode": 3}])
def test_what_changes_no_number_of_the_answer_is_no_reason_not_to_read_a_call(given):
    """Flax's argument of a dropout that is not asked for; ONNX's of its fourth result, and of its rounding."""
    assert question(signature([*SDPA, *given]), (Q, K, V), given).named.keys() == {"Q", "K", "V"}


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((Q, K, V), {"dropout_p": 0.1}, "the argument dropout_p=0.1"),
        ((Q, K), {}, "no argument that is V"),
        ((Q, V, V), {}, "do not fit together"),
        ((Q[0, 0, 0], K, V), {}, "are meant"),
        ((Q, K, V, torch.ones(7, dtype=torch.bool)), {}, "a mask of shape"),
    ],
)
def test_what_says_something_else_is_not_read(args, kwargs, why):
    """With the reason."""
    with pytest.raises(Unread, match=why):
        question(signature(SDPA), args, kwargs)


@pytest.mark.parametrize(
    ("polarity", "mask"),
    [("true_attends", [True, False]), ("true_masks", [False, True]), ("integer", [1, 0]), ("additive", [0.0, -math.inf])],
)
def test_a_mask_is_read_in_the_kernels_polarity(polarity, mask):
    """Numbers that are 0, or hide, are a mask too."""
    asked = question(signature(None, mask_polarity=polarity), (Q, K[:, :, :2], V[:, :, :2], torch.tensor(mask)), {})

    assert asked.named["mask"].tolist() == [True, False]
    assert "bias" not in asked.named


def test_axes_that_are_left_out_are_given_and_taken_away():
    """(b, n, d) and (n, d), NumPy's; and the answer comes back as the kernel's would."""
    q, k, v = (X[:, 0].numpy().astype(np.float16) for X in (Q, K, V))
    asked = question(signature(None), (q, k, v, np.ones((2, 3, 5), dtype=bool)), {})

    assert (asked.added, asked.named["Q"].shape, asked.named["mask"].shape) == (1, (2, 1, 3, 8), (2, 1, 3, 5))
    answer = in_its_axes(asked, torch.zeros(2, 1, 3, 6, dtype=torch.float16))
    kernel = {"library": "numpy", "dtypes": {"float16 float16 float16": "float32"}}
    back = as_the_kernel(answer, kernel, asked)
    assert (type(back), back.shape, back.dtype) == (np.ndarray, (2, 3, 6), np.float32)
    assert as_the_kernel(answer.double(), kernel, asked).dtype == np.float64  # a wrong dtype stays wrong


def test_numpy_answers_in_bfloat16_by_ml_dtypes():
    """As it is asked in it."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    asked = question(signature(None), [X.numpy().astype(bfloat16) for X in (Q, K, V)], {})

    answer = as_the_kernel(V.bfloat16(), {"library": "numpy", "dtypes": {}}, asked)

    assert answer.dtype == bfloat16
    assert (answer.astype(np.float32) == V.bfloat16().float().numpy()).all()


def test_the_dtype_of_an_answer_is_the_kernels_for_these_arguments():
    """One that promotes its arguments answers float16 questions in float16, and in float32 beside a float32."""
    kernel = {"library": "torch", "dtypes": {"float16 float16 float16": "float16", "float16 float32 float16": "float32"}}

    for k_dtype in (torch.float16, torch.float32):
        asked = question(signature(None), (Q.half(), K.to(k_dtype), V.half()), {})
        assert as_the_kernel(V.half(), kernel, asked).dtype == k_dtype


@pytest.mark.parametrize("axis", [-1, 2, (-1,), [2]])
def test_the_last_axis_may_be_named(axis):
    """By its number from either end."""
    asked = question(signature(["x", "axis"], "softmax"), (Q[0],), {"axis": axis})

    assert asked.named["scores"] is not None


@pytest.mark.parametrize("axis", [0, 1, None, (1, 2), (0,)])
def test_another_axis_is_not_the_steps(axis):
    """Nor are all of them at once, which None is in NumPy."""
    with pytest.raises(Unread, match="the argument axis"):
        question(signature(["x", "axis"], "softmax"), (Q[0],), {"axis": axis})


def test_without_an_axis_a_function_may_be_of_all_of_them():
    """As NumPy's and SciPy's are: a row is read, a matrix is not."""
    scipy = replace(signature(["x", "axis"], "softmax"), all_axes=True)

    assert question(scipy, (Q[0, 0, 0],), {}).named["scores"] is not None
    assert question(scipy, (Q,), {"axis": -1}).named["scores"] is not None
    with pytest.raises(Unread, match="all of them"):
        question(scipy, (Q,), {})


def test_a_variable_that_holds_a_tensor_is_that_tensor():
    """As of Keras: its gradient flows."""
    held = SimpleNamespace(value=torch.ones(8, requires_grad=True))

    assert question(signature(None, "layer_norm"), (Q,), {"gain": held}).named["gain"] is held.value


def test_a_norm_may_be_without_a_gain_and_a_bias():
    """They are 1 and 0 then; both, and eps, have other names."""
    keras = signature(["x", "gamma", "beta", "axis", "epsilon"], "layer_norm")

    args, named = fitted(question(keras, (Q,), {"gamma": None, "axis": -1, "epsilon": 1e-3}), [])
    _, others = fitted(question(keras, (Q, Q[0, 0, 0], K[0, 0, 0]), {}), [])

    assert args[0] is Q
    assert (named["gain"] == 1).all()
    assert (named["bias"] == 0).all()
    assert named["eps"] == 1e-3
    assert torch.equal(others["gain"], Q[0, 0, 0])
    assert torch.equal(others["bias"], K[0, 0, 0])


@pytest.mark.parametrize("axes", [4, 3])
def test_a_kernel_with_tokens_before_heads_is_read_and_answered_so(axes):
    """(b, n, h, d) and (n, h, d); masks are (b, h, n, m) and (h, n, m) all the same."""
    first = 0 if axes == 3 else slice(None)
    tokens_first = replace(signature(SDPA), tokens_first=True)
    mask = torch.randn(2, 4, 3, 5) > 0

    asked = question(tokens_first, [X.transpose(1, 2)[first] for X in (Q, K, V)], {"attn_mask": mask[first]})

    batch = slice(0, 1) if axes == 3 else slice(None)
    for name, expected in zip(("Q", "K", "V", "mask"), (Q, K, V, mask), strict=True):
        assert torch.equal(asked.named[name], expected[batch]), name
    answer = torch.randn(2, 4, 3, 6)[batch]
    assert torch.equal(in_its_axes(asked, answer), answer.transpose(1, 2)[first])


def attention(Q, K, V, mask=None, *, causal=False, scale=None):
    """The step, plainly."""
    scores = Q @ K.mT * (Q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() & (True if mask is None else mask)
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), dim=-1) @ V


def test_what_a_stand_in_does_not_offer_is_said_otherwise():
    """A causal rule and a window by a mask, grouped heads by repetition, a scale by a power of two."""
    asked = question(signature(None), (Q, K[:, :2], V[:, :2]), {"causal": True, "scale": 2 * 8**-0.5})

    args, options = fitted(asked, ())

    repeated = [X.repeat_interleave(2, dim=1) for X in (K[:, :2], V[:, :2])]
    assert options == {}
    assert torch.equal(attention(*args), attention(Q, *repeated, causal=True, scale=2 * 8**-0.5))
    with pytest.raises(Unread, match=r"scale=0\.3"):
        fitted(question(signature(None), (Q, K, V), {"scale": 0.3}), ())
    with pytest.raises(Unread, match="softcap, which the stand-in does not offer"):
        fitted(question(signature(None), (Q, K, V), {"softcap": 5.0}), ())


@pytest.mark.parametrize("said", ["zeros", "nan", "mean"])
def test_a_fully_masked_row_is_what_the_kernel_has_there(said):
    """Where the stand-in has zeros; anything else it has there is its own fault."""
    mask = torch.tensor([[False] * 5, [True] * 5, [True] * 5])
    asked = question(signature(None, fully_masked_row=said), (Q, K, V, mask), {})
    right = torch.ones(2, 4, 3, 6)
    right[:, :, 0] = 0

    answer = by_convention(asked, right)

    none_seen = fully_masked(asked)
    assert none_seen is not None
    assert none_seen[0, 0, :, 0].tolist() == [True, False, False]
    expected = {"zeros": torch.zeros(2, 4, 6), "nan": torch.full((2, 4, 6), math.nan), "mean": V.mean(dim=2)}[said]
    assert torch.equal(answer[:, :, 0].nan_to_num(7), expected.nan_to_num(7))
    assert (answer[:, :, 1:] == 1).all()


@pytest.mark.parametrize(("said", "expected"), [("zeros", 0.0), ("nan", math.nan), ("mean", 0.5)])
def test_a_row_of_minus_infinity_is_what_the_kernels_softmax_has_there(said, expected):
    """Of a stand-in it is zeros; no other row is touched."""
    scores = torch.tensor([[-math.inf, -math.inf], [0.0, -math.inf]])
    asked = question(signature(None, "softmax", fully_masked_softmax=said), (scores,), {})

    answer = by_convention(asked, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))

    assert answer[0].nan_to_num(7).tolist() == [7.0 if math.isnan(expected) else expected] * 2
    assert answer[1].tolist() == [1, 0]


def test_a_causal_rule_from_the_bottom_right_is_a_mask():
    """A stand-in has the other corner."""
    asked = question(signature(None, causal_alignment="bottom_right"), (Q, K, V), {"causal": True})

    args, options = fitted(asked, ("causal",))

    assert options == {}
    assert args[3].tolist() == torch.ones(3, 5, dtype=torch.bool).tril(2).tolist()
