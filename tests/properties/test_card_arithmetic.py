"""The contract card names how a black box adds up, what it rounds on the way and which bits move, of every width and order."""

import numpy as np
import pytest
import torch
from rounding_kernel import Rounding, accumulated, in_groups, lanes, pairwise

from properties.card import arithmetic, invariance, summation
from properties.card.card import invariance_of
from properties.implementations.conventions import Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES, Impl

ORDERS = {
    "sequential": accumulated,
    "sequential, from the last": lambda terms, add: accumulated(terms[::-1], add),
    "pairwise": pairwise,
    "8 lanes": lanes(8),
    "16 lanes": lanes(16),
    "blocks of 8": lambda terms, add: pairwise([accumulated(terms[i : i + 8], add) for i in range(0, len(terms), 8)], add),
    "groups of 4, one after the other": in_groups(4),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulation", ["bfloat16", "float16", "float32", "float64"])
def test_the_width_of_every_sum_is_named(dtype, accumulation):
    """Products, the sum of softmax, values: as narrow as it is; where the dtype cannot show it, no narrower than it is."""
    impl = Impl(Rounding(accumulation), dtype).under(Conventions())

    named = {
        "products": str(arithmetic.of_products(impl)),
        "sum": str(arithmetic.of_the_sum(impl)),
        "values": str(arithmetic.of_values(impl)),
    }

    hidden = dtype == "float16" and accumulation == "float64"
    wide = accumulation if dtype == "float64" or FORMATS[accumulation].bits < 14 else "float32 or wider"
    wide = {("float32", "float32"): "float32", ("float32", "float64"): "float64 or wider"}.get((dtype, accumulation), wide)
    terms = "float64 or wider" if hidden else accumulation
    assert named == {"products": terms, "sum": wide, "values": terms}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("stores", "scores", "weights"),
    [
        ("", "kept", "kept"),
        ("weights", "kept", "rounded"),
        ("unnormalised", "kept", "rounded before the division"),
        ("scores weights", "rounded", "rounded"),
    ],
)
def test_what_is_stored_in_the_narrow_dtype_is_named(dtype, stores, scores, weights):
    """Scores, weights, weights before the division; and the contract that follows is one."""
    impl = Impl(Rounding(stores=stores), dtype).under(Conventions())

    assert (arithmetic.scores_rounded(impl), arithmetic.weights_rounded(impl)) == (scores, weights)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_order_of_summation_is_named(order, dtype):
    """Of P·V, by which keys a large one swallows."""
    impl = Impl(Rounding(order=ORDERS[order]), dtype).under(Conventions())

    assert summation.order(summation.sizes(impl, arithmetic.of_values(impl))) == order


def test_an_order_without_a_name_is_other():
    """Not forced into the nearest one; and columns that differ are said to."""
    scrambled = np.random.default_rng(1).permutation(summation.KEYS)
    impl = Impl(Rounding(order=lambda terms, add: accumulated([terms[i % len(terms)] for i in scrambled], add)), "float32")
    size = summation.sizes(impl.under(Conventions()), arithmetic.Width(24))

    assert summation.order(size) == "other"
    place = np.arange(summation.KEYS)
    two = np.stack([np.maximum.outer(place, place) + 1, summation.KEYS - np.minimum.outer(place, place)], axis=-1)
    assert summation.order(two.astype(float)) == f"sequential; {summation.COLUMNS_DIFFER}"


class Approximate(Rounding):
    """Its softmax is 2⁻¹⁸ off for one argument."""

    steps = frozenset({"softmax"})

    def softmax(self, scores):
        weights = torch.softmax(scores.to(torch.float64), dim=-1)
        return torch.where(scores == -5.25, weights * (1 + 2.0**-18), weights).to(scores.dtype)


def test_the_largest_error_of_the_exponential_is_found():
    """In units in the last place, with its argument: 2⁻¹⁸ are 2⁵ to 2⁶ of float32's."""
    worst = arithmetic.exponential(Impl(Approximate(), "float32").under(Conventions()))

    assert worst.argument == 5.25
    assert 2**5 <= worst.ulps < 2**6 + 1
    assert str(arithmetic.exponential(Impl(Approximate(), "bfloat16").under(Conventions()))) == "correctly rounded"


# Bits that do not move ------------------------------------------------------------------------------------------------


class Variant(Rounding):
    """Adds up from the last key on where `unlike` says so."""

    def __init__(self, unlike):
        super().__init__()
        self.unlike, self.calls = unlike, 0

    def attention(self, Q, K, V, mask=None):
        self.calls += 1
        backwards = self.unlike(Q, self.calls)
        args = (Q, K.flip(-2), V.flip(-2)) if backwards else (Q, K, V)
        return super().attention(*args, mask if mask is None or not backwards else mask.flip(-1))


@pytest.mark.parametrize(
    ("name", "unlike", "size"),
    [
        ("batch_size", lambda Q, _: len(Q) > 4, 8),
        ("heads", lambda Q, _: Q.shape[1] > 8, 16),
        ("query_chunks", lambda Q, _: Q.shape[-2] == 2, 2),
        ("repetition", lambda Q, calls: calls >= 3, 3),
    ],
)
def test_a_bit_that_moves_is_found_with_its_first_size(name, unlike, size):
    """And nothing else is said to move."""
    rows = {row.name: row for row in invariance_of(Impl(Variant(unlike), "float32").under(Conventions()))}

    assert (rows[name].holds, rows[name].size) == (False, size)
    if name != "repetition":
        assert all(row.holds for other, row in rows.items() if other not in (name, "key_split"))


def test_who_adds_up_alike_moves_no_bit():
    """But where keys are split, which nobody expects."""
    rows = invariance_of(Impl(Rounding(), "bfloat16").under(Conventions()))

    assert [row.name for row in rows if not row.holds] == ["key_split"]
    assert [row.name for row in rows if not row.expected] == ["key_split"]
    assert len(rows) == len(invariance.INVARIANCES)


class OfItsPlace(Rounding):
    """The third of a batch is added up from the last key on."""

    def attention(self, Q, K, V, mask=None):
        forwards, backwards = super().attention(Q, K, V, mask), super().attention(Q, K.flip(-2), V.flip(-2))
        if len(Q) > 2:
            forwards[2] = backwards[2]
        return forwards


def test_a_place_in_the_batch_that_differs_is_found():
    """It is the second that is asked for after the first."""
    rows = {row.name: row for row in invariance_of(Impl(OfItsPlace(), "float32").under(Conventions()))}

    assert (rows["batch_place"].holds, rows["batch_place"].size) == (False, 2)
    assert rows["batch_size"].holds
