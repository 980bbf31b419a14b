"""The scalar functions inside the steps, on every number that a 16-bit format has: exp, ReLU, both GELU, the root of LayerNorm.

Each step is given inputs in which it is the scalar function and nothing else. A 16-bit implementation is asked all numbers of its
own format, a wider one all those of both. NaN and the infinities are met as categories. Two things are left open: numbers that
float32 holds as subnormal only (many a device counts them as zero, and so may a matmul on a CPU), and, for GELU, numbers so large
that x·(1 + erf) overflows before it is halved; torch's own multiplies in that order, and makes +∞ NaN, but only within a vector.
"""

import numpy as np
import pytest
import torch

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.formats import FORMATS

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
SMALLEST = 2.0**-124  # from here on x/4 is a normal number in float32
LARGEST_DOUBLED = 2.0**126
LARGEST_SQUARED = 2.0**62  # float32 holds the square of what is smaller


def every_number(dtype: str) -> np.ndarray:
    """All finite numbers of the 16-bit formats that `dtype` can hold and no device takes for zero, in order, each once."""
    formats = [form for form in SIXTEEN_BITS if dtype in ("float32", "float64", str(form).removeprefix("torch."))]
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16)
    numbers = np.concatenate([patterns.view(form).to(torch.float64).numpy() for form in formats])
    return np.unique(numbers[np.isfinite(numbers) & ((np.abs(numbers) >= SMALLEST) | (numbers == 0))])


def of_one_unit(activation: str) -> dict:
    """The feed-forward step that applies its activation to a single number."""
    one, zero = np.ones((1, 1)), np.zeros(1)
    return {"W_1": one, "b_1": zero, "W_2": one, "b_2": zero, "activation": activation}


@claim("A9", needs="softmax")
def test_softmax_is_right_at_every_difference_of_two_scores(impl):
    """Scores x and 0, for every x: only the exponential is left, from where it vanishes to where it takes all."""
    x = every_number(impl.dtype)
    scores = np.stack([x, np.zeros_like(x)], axis=1)

    assert_rounding_only(impl, "softmax", impl.softmax(scores), scores)


@claim("A9", needs="softmax")
def test_softmax_handles_nan_and_infinity(impl):
    """A score of −∞ gets nothing; NaN, or +∞, for which there is no answer, makes the row NaN."""
    scores = np.array([[-np.inf, 0.0], [np.nan, 0.0], [np.inf, 0.0]])

    assert_identical(impl.softmax(scores), np.array([[0.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]]), "softmax of no number")


@claim("F2", needs="feed_forward")
def test_relu_is_exact_at_every_number(impl):
    """max(0, x) rounds nothing: bit for bit, NaN stays NaN and an infinity goes where its sign says."""
    x = np.concatenate([every_number(impl.dtype), [np.nan, np.inf, -np.inf]])

    got = impl.feed_forward(x[None, :, None], **of_one_unit("relu"))[0, :, 0]

    if impl.conventions.subnormals == "flushed":
        got = np.where((np.abs(x) < FORMATS[impl.dtype].smallest_normal) & (got == 0), np.maximum(x, 0.0), got)
    assert_identical(got, np.maximum(x, 0.0), "ReLU")


@claim("F2", needs="feed_forward")
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_gelu_is_right_at_every_number(impl, activation):
    """Both forms, from the tail where nothing is left to where x itself is."""
    x = every_number(impl.dtype)
    X = x[np.abs(x) <= LARGEST_DOUBLED][None, :, None]

    got = impl.feed_forward(X, **of_one_unit(activation))

    assert_rounding_only(impl, "feed_forward", got, X, **of_one_unit(activation))


@claim("F2", needs="feed_forward")
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_gelu_handles_nan_and_infinity(impl, activation):
    """NaN stays NaN, and no infinity becomes a number but 0."""
    got = impl.feed_forward(np.array([[[np.nan], [np.inf], [-np.inf]]]), **of_one_unit(activation))[0, :, 0]

    assert_identical(np.isnan(got[0]), np.array(True), "GELU of NaN")
    assert_identical(np.isfinite(got[1]), np.array(False), "GELU of +∞ is a number")
    assert_identical(np.isnan(got[2]) | (got[2] == 0), np.array(True), "GELU of −∞ is 0 or nothing")


@claim("R2", needs="layer_norm")
def test_the_root_in_a_norm_is_right_at_every_number(impl):
    """Rows (x, −x) have mean 0 and variance x²: what is left is x/√(x² + eps), from where eps rules to where it vanishes."""
    x = every_number(impl.dtype)
    x = x[np.abs(x) < LARGEST_SQUARED]
    X, norm = np.stack([x, -x], axis=1)[None], {"gain": np.ones(2), "bias": np.zeros(2)}

    assert_rounding_only(impl, "layer_norm", impl.layer_norm(X, **norm), X, **norm)


@claim("R2", needs="layer_norm")
def test_layer_norm_handles_nan_and_infinity(impl):
    """A row with NaN or an infinity in it has neither mean nor variance."""
    X = np.array([[[np.nan, 1.0], [np.inf, -np.inf], [np.inf, 1.0]]])

    got = impl.layer_norm(X, gain=np.ones(2), bias=np.zeros(2))

    assert_identical(np.isnan(got).all(axis=-1), np.array([[True, True, True]]), "rows that are NaN")
