"""Every memory layout is one: it changes how the numbers lie, not what they are, and its gaps are watched."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from properties import test_layouts
from properties.implementations.impl import Impl
from properties.implementations.layouts import CONTIGUOUS, LAYOUTS, REFILLED, Handed, asked, first_for_others, of, with_zeros

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

    with_zeros([each.memory], ask)

    place, numbers, truth = seen[0]
    assert place == id(each.given)
    assert not numbers.any()
    assert truth.all()
    assert np.array_equal(np.asarray(each.given), VALUES)
    assert not each.changed()
    assert not mask.changed()


def test_the_answer_of_a_refilled_question_is_read_after_another():
    """What is kept by address is asked before, and an answer that the next one is written over is asked after."""
    given, memory = np.array([1.0, 2.0]), np.empty(2)
    seen = []

    def ask(numbers: np.ndarray) -> np.ndarray:
        seen.append(numbers.tolist())
        memory[:] = numbers
        return memory

    answer = asked(REFILLED, [given], (given,), ask)

    assert seen == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    assert answer.tolist() == [0.0, 0.0]
    assert given.tolist() == [1.0, 2.0]
    assert asked(None, [given], (given,), ask).tolist() == [1.0, 2.0]


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


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
@pytest.mark.parametrize("values", [VALUES % 2 == 0, VALUES.astype(np.int64)], ids=["mask", "tokens"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_masks_and_tokens_are_laid_like_numbers(layout, values, arrays):
    """The same values in another geometry, and a write behind them is seen."""
    given, plain = (Handed("x", values.copy(), "float32", "cpu" if arrays == "torch" else None, each) for each in (layout, None))

    assert np.array_equal(np.asarray(given.given), values)
    alive = geometry(given.given) != geometry(plain.given)
    assert alive != (layout == "backwards" and arrays == "torch")
    flat = given.memory.reshape(-1)
    flat[-1] = not flat[-1]
    assert given.changed()


def test_of_several_layouts_each_array_has_the_next():
    """Over and over; one layout is everybody's, and none is contiguous."""
    assert [of("transposed+contiguous+strided", place) for place in (0, 1, 2, 3)] == [
        "transposed",
        "contiguous",
        "strided",
        "transposed",
    ]
    assert {of("offset", place) for place in range(3)} == {"offset"}
    assert of(None, 1) == CONTIGUOUS


@pytest.mark.parametrize("layouts", [test_layouts.ONE_EACH, test_layouts.OF_THE_SAME_NUMBERS], ids=["49", "25"])
def test_every_two_arrays_meet_in_every_pair_of_layouts(layouts):
    """Of as many arrays as there are names in each."""
    rows = [layout.split("+") for layout in layouts]
    names = {name for row in rows for name in row}

    assert names >= LAYOUTS.keys() - {"expanded"} | {CONTIGUOUS}
    for first, second in combinations(range(len(rows[0])), 2):
        assert {(row[first], row[second]) for row in rows} == set(product(names, names))


class Watching:
    """Keeps what it sees of the geometry of its arguments, and answers its first one."""

    name, arrays, dtypes, steps, conventions = "watching", "torch", ("float32",), frozenset({"residual_norm"}), None

    def residual_norm(self, X, Y, *, gain, bias):
        """Not right, and nobody asks."""
        self.seen = [array.is_contiguous() for array in (X, Y, gain, bias)]
        return X.clone()


def test_each_argument_of_a_call_has_a_layout_of_its_own():
    """Positional and keyword arguments, in the order they are handed over in."""
    watching = Watching()
    numbers = {"gain": np.arange(3.0), "bias": np.arange(3.0)}

    Impl(watching, "float32").reading("transposed+contiguous+strided+contiguous").residual_norm(VALUES, VALUES, **numbers)

    assert watching.seen == [False, True, False, True]
