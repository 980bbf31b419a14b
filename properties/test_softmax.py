"""Softmax: scores become probabilities, and only their differences matter."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.oracle import oracle
from properties.inputs.attention import BLOCKS, score_shapes, scores
from properties.inputs.parameters import SEEDS


@claim("A5", needs="softmax")
@given(scores())
def test_softmax_agrees_with_the_oracle(impl, rows):
    """exp(s) / Σ exp(s) differs from the oracle by rounding alone, for scores of every size and shape."""
    assert_rounding_only(impl, "softmax", impl.softmax(rows), rows)


@claim("A5", needs="softmax")
@given(scores())
def test_probabilities_sum_to_one(impl, rows):
    """None is negative, and each row sums to 1 within the rounding of the dtype."""
    P = impl.softmax(rows)

    assert_at_most(-P.min(), 0.0, "−smallest probability")
    assert_at_most(np.abs(P.sum(axis=-1) - 1).max(), sum_bound(rows.shape[-1] + 2, impl, 1.0), "|Σ P − 1|")


@st.composite
def exact_scores(draw: st.DrawFn) -> np.ndarray:
    """A power of two of equal scores in each row; the others −∞, or so far below that exp gives 0: no probability is rounded."""
    *leading, n, m = draw(score_shapes())
    tied = 2 ** draw(st.integers(0, m.bit_length() - 1))
    order = np.random.default_rng(draw(SEEDS)).permuted(np.broadcast_to(np.arange(m), (*leading, n, m)), axis=-1)
    top = draw(st.sampled_from((0.0, 1.0, -(2.0**12), 2.0**12)))
    return np.where(order < tied, top, draw(st.sampled_from((-np.inf, -(2.0**13)))))


@claim("A5", needs="softmax")
@given(exact_scores())
def test_a_power_of_two_of_equal_scores_share_exactly(impl, rows):
    """2ᵏ equal scores have 2⁻ᵏ each, and what is far below or −∞ has exactly 0: bit for bit, in every dtype."""
    assert_identical(impl.softmax(rows), oracle("softmax", rows), "probabilities of tied scores")


@claim("A5", needs="softmax")
@given(score_shapes(), SEEDS)
def test_a_row_of_minus_infinity_is_what_is_declared(impl, shape, seed):
    """A row with no finite score has zeros, NaN or equal weights, by convention; the others are untouched by it."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-64, 65, shape) / 16
    fully_masked = rng.random(shape[:-1]) < 0.5
    rows[fully_masked] = -np.inf

    P = impl.softmax(rows)

    assert_rounding_only(impl, "softmax", P, rows)
    assert_identical(np.isfinite(P), np.ones(shape, dtype=bool), "which weights are finite, NaN by declaration apart")


@claim("A5", needs="softmax")
@given(scores(), st.integers(0, 3), SEEDS)
def test_every_row_is_a_distribution_of_its_own(impl, rows, i, seed):
    """Other scores in one row leave every other row bit-identical, and move their own as the oracle predicts."""
    i %= rows.shape[-2]
    others = np.delete(np.arange(rows.shape[-2]), i)
    changed = rows.copy()
    changed[..., i, :] = np.random.default_rng(seed).integers(-64, 65, rows[..., i, :].shape) / 16

    before, after = impl.softmax(rows), impl.softmax(changed)

    assert_identical(after[..., others, :], before[..., others, :], f"rows other than {i}")
    assert_rounding_only(impl, "softmax", after, changed)


@st.composite
def shifted_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rows of scores, and the same with a large number added to each row: both exact in every dtype."""
    shape = draw(score_shapes())
    step = 2.0 ** draw(st.integers(-10, 8))
    rows = np.random.default_rng(draw(SEEDS)).integers(0, 16, shape)
    shift = draw(st.integers(-15, 14)) * 16
    return rows * step, (rows + shift) * step


@claim("A9", needs="softmax")
@given(shifted_scores())
def test_only_differences_of_scores_matter(impl, drawn):
    """softmax(s + c) is judged as softmax(s), however far c reaches up or down, and nothing overflows."""
    rows, shifted = drawn

    assert_rounding_only(impl, "softmax", impl.softmax(shifted), rows)


@claim("A9", needs="softmax")
@given(score_shapes(), SEEDS, st.booleans())
def test_scores_at_the_end_of_the_range_do_not_overflow(impl, shape, seed, negative):
    """Scores as large as the dtype can add up without overflowing give probabilities, not NaN."""
    largest = 2.0**15 if impl.dtype == "float16" else 2.0**126
    rows = np.random.default_rng(seed).integers(0, 2, shape) * largest * (-1.0 if negative else 1.0)

    assert_rounding_only(impl, "softmax", impl.softmax(rows), rows)


@claim("A9", needs="softmax")
@given(scores(), SEEDS)
def test_scores_in_another_order_give_their_weights_in_that_order(impl, rows, seed):
    """Softmax does not know where in its row a score stands."""
    order = np.random.default_rng(seed).permutation(rows.shape[-1])

    assert_rounding_only(impl, "softmax", impl.softmax(rows[..., order])[..., np.argsort(order)], rows)


@claim("A11", needs="softmax")
@given(st.integers(1, 6) | st.sampled_from(BLOCKS), SEEDS, SEEDS, st.integers(-3, 6))
def test_weights_move_at_most_half_as_far_as_scores(impl, m, seed, other, exponent):
    """The law beside the study: ‖J‖ ≤ 1/2, so ‖softmax(s) − softmax(t)‖ ≤ ‖s − t‖/2, to rounding."""
    s, t = (np.random.default_rng(k).integers(-16, 17, (1, m)) * 2.0 ** (exponent - 4) for k in (seed, other))

    moved = np.linalg.norm(impl.softmax(s) - impl.softmax(t))

    allowed = np.linalg.norm(s - t) / 2 + np.sqrt(m) * sum_bound(m + 2, impl, 1.0)
    assert_at_most(moved, allowed, "‖softmax(s) − softmax(t)‖")
