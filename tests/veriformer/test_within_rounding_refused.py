"""What a user may ask the error budget wrongly: each is one line."""

import numpy as np
import pytest
import torch
from torch_attention import CAUSAL, inputs

import veriformer
from veriformer import within_rounding

Q, K, V = inputs()
OPTIONS = {
    "rtol": ({"rtol": 1}, "takes no rtol: what rounding may do differs .* veriformer.tolerance"),
    "atol": ({"atol": 1}, "takes no atol"),
    "tol": ({"tol": 1}, "takes no tol"),
    "an unknown argument": ({"acumulate": 1}, r"no argument 'acumulate'; did you mean accumulate\?"),
    "an unknown format": ({"accumulate": "flot32"}, "accumulation: expected one of float64"),
    "an unknown mode": ({"mode": "lazy"}, "mode: expected one of eager, fused, got 'lazy'"),
    "a contract that means nothing": ({"mode": "eager", "cast_weights": True}, "cast_weights:"),
    "an unknown library": ({"like": "torhc"}, "like: expected one of torch"),
    "an unknown choice": ({"conventions": {"fully_masked_row": "x"}}, "fully_masked_row: expected"),
    "a dtype without a budget": ({"dtype": "fp8"}, "dtype: expected one of float64, .* got 'fp8'"),
    "an input twice": ({"Q": Q}, "Q is given twice"),
}
INPUTS = {
    "a step that is none": (("atention", Q, Q, K, V), r"step: no 'atention'; did you mean attention\?"),
    "a step without rounding": (("mask", Q, 4, 4), "step: expected one that computes with real numbers"),
    "a result of integers": (("attention", Q.long(), Q, K, V), "got: expected an array of float64, .* got int64"),
    "too few inputs": (("attention", Q, Q, K), "expected V too"),
    "too many inputs": (("attention", Q, Q, K, V, None, 3), "expected at most 4 inputs, got 5"),
    "a list": (("attention", Q, [1.0], K, V), r"Q: expected an array \(b, h, n, d_k\), got list"),
    "an object": (("attention", Q, Q, K, object()), "input 2: expected an array, got object, which has neither"),
    "too few axes": (("attention", Q, Q[0], K, V), r"Q: expected an array \(b, h, n, d_k\), got shape \(2, 5, 8\)"),
    "axes that differ": (("attention", Q, Q, K[..., :3], V), "K: expected d_k = 8 as in Q, got 3 in shape"),
    "heads that no group reads": (
        ("attention", Q, Q, torch.cat([K, K[:, :1]], 1), torch.cat([V, V[:, :1]], 1)),
        "a divisor of 2, got 3",
    ),
    "a mask that fits nothing": (("attention", Q, Q, K, V, CAUSAL[:3]), "mask: expected a shape that broadcasts to"),
    "other numbers": (("attention", Q, Q.float() * 0.1, K, V), "Q holds numbers that bfloat16 cannot represent"),
}
TYPE_ERRORS = {"rtol", "atol", "tol", "an unknown argument", "an input twice", "a result of integers", "too few inputs"}
TYPE_ERRORS |= {"too many inputs", "a list", "an object"}


@pytest.mark.parametrize("wrong", [*OPTIONS, *INPUTS])
def test_what_is_asked_wrongly_is_one_line(wrong):
    """A ValueError or a TypeError, whichever Python itself would raise, and never a verdict."""
    options, said = OPTIONS.get(wrong, ({}, ""))
    given, said = INPUTS.get(wrong, (("attention", Q, Q, K, V), said))

    with pytest.raises(TypeError if wrong in TYPE_ERRORS else ValueError, match=said) as raised:
        within_rounding(*given, **options)
    assert "\n" not in str(raised.value)


def test_a_convention_that_the_oracle_lacks_inside_a_layer_is_refused():
    """No translation of the answer reaches it there."""
    with pytest.raises(ValueError, match="conventions: encoder with eps=outside: the oracle has no such encoder"):
        within_rounding("encoder", Q[0], Q[0], layers=[], h=1, conventions="eps=outside")


def test_an_argument_with_a_default_may_be_left_out_and_no_other_may_be_none():
    """Also where the signature gives its axes: `b (vocab,)=None`."""
    X = np.ones((1, 1, 2, 4))

    assert veriformer.oracle("output_projection", X[0], W=np.ones((4, 3))).shape == (1, 2, 3)
    with pytest.raises(TypeError, match="expected dO too"):
        veriformer.oracle("attention_backward", None, X, X, X)
    with pytest.raises(TypeError, match="dO: expected floating-point numbers, as gradients are of and to, got int64"):
        veriformer.oracle("attention_backward", np.ones((1, 1, 2, 4), dtype=np.int64), X, X, X)
