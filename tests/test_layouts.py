"""Every memory layout is one: it changes how the numbers lie, not what they are, and its gaps are watched."""

import numpy as np
import pytest
import torch

from properties.layouts import LAYOUTS, REFILLED, Handed, first_for_others, first_with_zeros

VALUES = np.repeat(np.arange(6.0).reshape(1, 2, 3), 2, axis=0)  # the same along its first axis, so that it can be expanded


def handed(layout: str | None, arrays: str) -> Handed:
    """VALUES as an implementation that takes such arrays is handed them."""
    return Handed("X", VALUES.copy(), "float32", "cpu" if arrays == "torch" else None, layout)


def geometry(given) -> tuple:
    """Strides in numbers, and how far into its memory an array begins."""
    if isinstance(given, torch.Tensor):
        return given.stride(), given.storage_offset()
    start = given if given.base is None else given.base
    while isinstance(start.base, np.ndarray):
        start = start.base
    offset = given.__array_interface__["data"][0] - start.__array_interface__["data"][0]
    return tuple(stride // given.itemsize for stride in given.strides), offset // given.itemsize


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_layout_changes_the_call_that_is_made(layout, arrays):
    """Alive: each gives another geometry than the contiguous array has, and the same numbers. torch has no negative strides."""
    given, plain = handed(layout, arrays).given, handed(None, arrays).given

    assert np.array_equal(np.asarray(given), VALUES)
    alive = geometry(given) != geometry(plain)
    assert alive != (layout == "backwards" and arrays == "torch")


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
@pytest.mark.parametrize("layout", ["transposed", "strided", "offset"])
def test_a_write_into_a_gap_is_seen(layout, arrays):
    """Memory that belongs to no number of the array is watched like the rest; where there are gaps they hold NaN."""
    each = handed(layout, arrays)
    assert not each.changed()

    flat = each.memory.reshape(-1)
    if layout != "transposed":
        assert np.isnan(np.asarray(flat)[-1])
    flat[-1] = 7.0

    assert each.changed()


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_arrays_asked_about_before_held_zeros_then(arrays):
    """The first question sees zeros in the array that later holds the numbers; truth values stay; errors are nobody's."""
    each = handed(REFILLED, arrays)
    mask = Handed("mask", np.array([True]), "float32", "cpu" if arrays == "torch" else None, REFILLED)
    seen = []

    def ask() -> None:
        seen.append((id(each.given), np.array(each.given.tolist()), np.array(mask.given.tolist())))
        raise ValueError("zeros are beneath me")

    first_with_zeros([each.memory], ask)

    place, numbers, truth = seen[0]
    assert place == id(each.given)
    assert not numbers.any()
    assert truth.all()
    assert np.array_equal(np.asarray(each.given), VALUES)
    assert not each.changed()
    assert not mask.changed()


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_a_request_before_is_for_other_inputs_of_the_same_shape(arrays):
    """Token 0 everywhere, nothing masked, rows of the opposite sign, None as it is; the inputs stay, errors are nobody's."""
    device = "cpu" if arrays == "torch" else None
    inputs = [np.array([[3, 1]]), np.array([[True, False]]), np.array([[1.0, -2.0]])]
    each = [Handed("X", values, "float32", device, None) for values in inputs]
    seen = []

    def ask(*others) -> None:
        seen.extend(None if other is None else np.asarray(other).tolist() for other in others)
        raise ValueError("not for me")

    first_for_others([*(one.given for one in each), None], ask)

    assert seen == [[[0, 0]], [[True, True]], [[-1.0, 2.0]], None]
    assert not any(one.changed() for one in each)
