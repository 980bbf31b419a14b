"""The exact gradients that many rows are held to: small enough for every dtype, and moved by every row."""

import numpy as np
import pytest

from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.test_gradients import BATCHES, ROWS, at_the_ends, exact_call, exact_gradients
from properties.test_transformer import named

SHAPES = (*((rows, 1) for rows in ROWS), *((1, rows) for rows in ROWS), *BATCHES)


@pytest.mark.parametrize(("b", "n"), SHAPES)
def test_exact_gradients_are_numbers_of_every_dtype(b, n):
    """Each is a whole number that bfloat16 holds, no parameter's is 0 throughout, and the shapes are the parameters'."""
    call = exact_call(b, n)
    parameters = named(call.kwargs["parameters"])

    for name, exact in exact_gradients(call).items():
        assert np.array_equal(Impl(built_in("optimized"), "bfloat16").representable(exact), exact), name
        assert np.abs(exact).max() <= 256, name
        assert exact.shape == parameters[name].shape
        assert n > 1 or exact.any(), name


@pytest.mark.parametrize(("b", "n"), [(33, 1), (3, 11), (1, 65)])
def test_every_row_moves_an_exact_gradient(b, n):
    """Without the direction of any one row some gradient is another: no row can be dropped unseen."""
    call = exact_call(b, n)
    whole = exact_gradients(call)

    for row in np.ndindex(b, n):
        direction = call.kwargs["direction"].copy()
        direction[row] = 0.0
        without = exact_gradients(call.but(direction=direction))
        assert any(not np.array_equal(without[name], exact) for name, exact in whole.items()), row


def test_the_ends_of_an_array_are_its_last_indices():
    """The last row and the last column of a matrix, the last number of a vector."""
    assert np.array_equal(at_the_ends(np.zeros((2, 3))), [[False, False, True], [True, True, True]])
    assert np.array_equal(at_the_ends(np.zeros(3)), [False, False, True])
