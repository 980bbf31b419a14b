"""The oracle's shapes are checked once for each set of shapes, and again where anything is another."""

import jaxtyping
import numpy as np
import pytest

from properties.implementations.shapes import shapes_checked_once, shapes_unchecked


def is_checked(*arguments) -> bool:
    """Whether the step that is asked for these has its shapes checked."""
    with shapes_checked_once("a step of this test", *arguments):
        return not jaxtyping.config.jaxtyping_disable


def test_a_second_call_of_the_same_shapes_is_not_checked():
    """Whatever the numbers are; nested arrays count as well."""
    layers = [{"W": np.zeros((2, 3))}]

    assert is_checked(np.zeros((2, 3)), {"layers": layers, "h": 1})
    assert not is_checked(np.ones((2, 3)), {"layers": layers, "h": 1})


@pytest.mark.parametrize(
    "other",
    [
        (np.zeros((3, 3)), {"h": 1}),
        (np.zeros((2, 3), dtype=bool), {"h": 1}),
        (np.zeros((2, 3)), {"h": 3}),
        (np.zeros((2, 3)), {"h": 1, "mask": np.zeros((2, 2))}),
    ],
    ids=["shape", "dtype", "choice", "another array"],
)
def test_whatever_is_another_is_checked(other):
    """A shape, a dtype, a choice, one array more."""
    is_checked(np.zeros((2, 3)), {"h": 1})

    assert is_checked(*other)


def test_who_fails_is_checked_again():
    """Its shapes were never right."""

    def fails():
        assert not jaxtyping.config.jaxtyping_disable
        raise ArithmeticError

    for _ in range(2):
        with pytest.raises(ArithmeticError), shapes_checked_once("a step that fails", 5):
            fails()

    assert not jaxtyping.config.jaxtyping_disable


def test_within_what_is_unchecked_nothing_is_checked():
    """And nothing is noted of it."""
    with shapes_unchecked():
        assert not is_checked("later")

    assert is_checked("later")
