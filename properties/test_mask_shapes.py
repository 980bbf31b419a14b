"""Mask shapes: a mask means what it broadcasts to, in every shape that broadcasts, small or large.

All scores are 0, and each query sees a number of keys that is a power of two: its row is the mean of their values, bit for bit in
every dtype. No budget is needed, so the shapes can be as many and the sizes as large as they like. Nor do masked keys and values
matter, NaN and ∞ among them: where these leak, by convention, a row may be NaN, but no other number.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice, product

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_identical
from properties.claims import claim
from properties.implementations.conventions import posed
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.attention import full, labels
from properties.inputs.parameters import BIASES

SEED = 7
SMALL = ((3, 2, 5, 4), (4, 4, 4, 4), (2, 2, 2, 4))
"""b, h, n and m: all different, so that a wrong axis does not fit; or the same, so that it does. Four keys have an exact mean."""

LARGE = ((3, 2, 130, 257), (17, 18, 33, 40), (2, 3, 600, 520))
"""More rows and keys than a block of 128 or 512, sequences and heads than a kernel unrolls, entries than 16 bits count."""

Sizes = tuple[int, int, int, int]


def broadcastable(sizes: Sizes) -> list[tuple[int, ...]]:
    """Every shape that broadcasts to (b, h, n, m): of no axis to four, each of them whole or 1."""
    suffixes = (sizes[4 - axes :] for axes in range(5))
    return list(dict.fromkeys(shape for whole in suffixes for shape in product(*((1, length) for length in whole))))


def some_keys(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of this shape, every row of which sees `count` keys that follow one another, from another one on."""
    m = shape[-1]
    return (np.arange(m) - rng.integers(0, m, (*shape[:-1], 1))) % m < count


def small_masks(sizes: Sizes, shape: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Masks of this shape: of one key a row; and where there is no axis of keys, each row sees all of them or none."""
    if shape and shape[-1] == sizes[-1]:
        return [some_keys(shape, 1, rng)]
    if shape in ((), (1,) * len(shape)):
        return [np.full(shape, seen) for seen in (True, False)]
    return [rng.permutation(np.arange(np.prod(shape)) % 2 == 0).reshape(shape)]


def assert_every_shape_is_read(impl: Impl, axes: range) -> None:
    """Attention under masks of so many axes gives each query what it sees, bit for bit; of no key, what is declared."""
    rng = np.random.default_rng(SEED)
    for sizes in SMALL:
        b, h, n, m = sizes
        Q, K, V = np.zeros((b, h, n, 1)), np.ones((b, h, m, 1)), 4 * (labels(b, h, m, 2) % 31)
        for mask in [mask for shape in broadcastable(sizes) if len(shape) in axes for mask in small_masks(sizes, shape, rng)]:
            with suppress(UnsatisfiedAssumption):  # it does not take such a mask, and that was counted
                args, kwargs = posed("attention", (Q, K, V, mask), {}, impl.conventions)
                exact = oracle("attention", *args, **kwargs)
                assert_identical(impl.attention(Q, K, V, mask), exact, f"attention under a mask of shape {mask.shape}")


@claim("M2", needs="attention")
def test_masks_of_every_broadcastable_shape_agree_with_the_oracle(impl):
    """Of two, three or four axes, each whole or 1, the last one too: a query sees what the mask says."""
    assert_every_shape_is_read(impl, range(2, 5))


@claim("M2", needs="attention")
def test_masks_of_fewer_than_two_axes_agree_with_the_oracle(impl):
    """One truth value for each key, or one for all, with an axis or without."""
    assert_every_shape_is_read(impl, range(2))


def large_masks(sizes: Sizes) -> Iterator[tuple[np.ndarray, int]]:
    """Masks that differ by sequence, head and query, or by some of them, and how many keys a row of theirs sees."""
    b, h, n, m = sizes
    rng = np.random.default_rng(SEED)
    for i, shape in enumerate([(b, h, n, m), (b, 1, n, m), (1, h, n, m), (b, 1, 1, m), (b, h, 1, m), (h, n, m), (n, m)]):
        count = (32, 1)[i % 2]
        yield some_keys(shape, count, rng), count


@claim("M2", needs="attention")
def test_large_masks_that_differ_by_sequence_and_head(impl):
    """Each query of a long and wide batch sees the keys that its own row of its own mask names, and no others."""
    for sizes in LARGE:
        b, h, n, m = sizes
        Q, K, V = np.zeros((b, h, n, 1)), np.ones((b, h, m, 1)), np.random.default_rng(SEED).integers(0, 2, (b, h, m, 8)) * 1.0
        for mask, count in large_masks(sizes):
            with suppress(UnsatisfiedAssumption):
                got = impl.attention(Q, K, V, mask)
                assert_identical(got, full(mask, *sizes) @ V / count, f"attention under a mask of shape {mask.shape}")


@claim("M2", needs="multi_head")
def test_large_masks_of_many_heads(impl):
    """The same of whole multi-head attention without weights: each head's features are averaged under that head's mask."""
    b, h, n, m = LARGE[0]
    X, M = np.zeros((b, n, 8 * h)), np.random.default_rng(SEED).integers(0, 2, (b, m, 8 * h)) * 1.0
    weights = {f"W_{name}": np.eye(8 * h) * (name in "VO") for name in "QKVO"} | dict.fromkeys(BIASES)
    heads = M.reshape(b, m, h, 8).swapaxes(1, 2)
    for mask, count in large_masks(LARGE[0]):
        with suppress(UnsatisfiedAssumption):
            got = impl.multi_head(X, M, mask, h=h, **weights)
            exact = (full(mask, b, h, n, m) @ heads / count).swapaxes(1, 2).reshape(b, n, 8 * h)
            assert_identical(got, exact, f"multi_head under a mask of shape {mask.shape}")


# NaN and ∞ behind masks -------------------------------------------------------------------------------------------------


NUMBERS = np.nan, np.inf, -np.inf
POISONED = *SMALL[:2], LARGE[0]


def masks_of_a_key(sizes: Sizes, j: int) -> Iterator[np.ndarray]:
    """Masks under which each row attends to one key: nobody to key j, or some rows; in every shape where the sizes are small."""
    b, h, n, m = sizes
    rng = np.random.default_rng(SEED)
    shapes = broadcastable(sizes) if sizes in SMALL else [(b, h, n, m), (b, 1, 1, m), (n, m)]
    for shape in (shape for shape in shapes if len(shape) > 1 and shape[-1] == m):
        yield np.insert(some_keys((*shape[:-1], m - 1), 1, rng), j, False, axis=-1)
        yield some_keys(shape, 1, rng)


def assert_right_or_leaked(got: np.ndarray, exact: np.ndarray, open_rows: np.ndarray, leaks: str, what: str) -> None:
    """Bit for bit; rows that attend to the number itself are not judged, and where it leaks any row may be NaN."""
    nobodys = open_rows | (np.isnan(got) if leaks == "leaks" else False)
    assert_identical(np.where(nobodys, exact, got), exact, what)


@claim("M3", needs="attention")
def test_nan_and_infinity_in_masked_keys_and_values_are_blocked_or_leak_as_declared(impl):
    """Rows that do not attend to the key get what the others say, or NaN where it leaks; under masks of every shape."""
    for sizes in POISONED:
        b, h, n, m = sizes
        Q, K, V, j = np.ones((b, h, n, 1)), np.zeros((b, h, m, 1)), 4 * (labels(b, h, m, 2) % 31), m // 2
        for (mask, number), in_keys in product(zip(masks_of_a_key(sizes, j), cycle(NUMBERS)), (True, False)):
            poisoned = [np.where(np.arange(m)[:, None] == j, number, X) if X is (K if in_keys else V) else X for X in (K, V)]
            conventions = impl.conventions
            leaks = conventions.non_finite_masked_key if in_keys else conventions.non_finite_behind_mask
            with suppress(UnsatisfiedAssumption):
                got = impl.attention(Q, *poisoned, mask)
                what = f"attention beside {number} in a masked {'key' if in_keys else 'value'}, mask of shape {mask.shape}"
                attended = full(mask, *sizes)
                assert_right_or_leaked(got, attended @ V, attended[..., j, None], leaks, what)


@claim("M3", needs="multi_head")
def test_nan_and_infinity_in_masked_tokens_are_blocked_or_leak_as_declared(impl):
    """A masked token of the memory is a key and a value; nobody attends to it, and where either leaks a row may be NaN."""
    for sizes in POISONED:
        b, h, n, m = sizes
        X, M, j = np.ones((b, n, 2 * h)), 4 * (labels(b, m, 2 * h) % 31), m // 2
        weights = {f"W_{name}": np.eye(2 * h) * (name in "VO") for name in "QKVO"} | dict.fromkeys(BIASES)
        heads = M.reshape(b, m, h, 2).swapaxes(1, 2)
        for mask, number in zip(islice(masks_of_a_key(sizes, j), 0, None, 2), cycle(NUMBERS)):
            with suppress(UnsatisfiedAssumption):
                got = impl.multi_head(X, np.where(np.arange(m)[:, None] == j, number, M), mask, h=h, **weights)
                exact = (full(mask, b, h, n, m) @ heads).swapaxes(1, 2).reshape(b, n, 2 * h)
                what = f"multi_head beside {number} in a masked token, mask of shape {mask.shape}"
                assert_right_or_leaked(got, exact, np.zeros(1, dtype=bool), impl.conventions.non_finite_behind_mask, what)
