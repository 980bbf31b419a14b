"""Budgets, checked both ways: no correct computation exceeds its budget, and stated faults do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.error_budget.budgets import budget, sum_bound
from properties.evaluation.calibration import orders
from properties.evaluation.calibration.low_precision import LowPrecision
from properties.evaluation.calibration.variants import summing
from properties.implementations.contract import DTYPES
from properties.implementations.conventions import OURS
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES as TORCH
from properties.implementations.oracle import oracle
from properties.inputs.parameters import dyadic
from properties.verdicts import ClaimBroken, record
from reports.records import Verdict

SEEDS = st.integers(0, 2**16)


class Named:
    """As much of an implementation as a budget looks at."""

    def __init__(self, name="somebody", dtype="float32"):
        self.name, self.dtype, self.adapter, self.conventions = name, dtype, object(), OURS


def heads(seed: int, tokens: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, K and V of two heads."""
    return tuple(dyadic(2 + seed + i, (1, 2, tokens, 4), 2.0) for i in range(3))


def torch_attention(dtype: str, *QKV: np.ndarray) -> np.ndarray:
    """PyTorch's own, as float64."""
    return F.scaled_dot_product_attention(*(torch.from_numpy(x).to(TORCH[dtype]) for x in QKV)).double().numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@given(SEEDS)
def test_an_correct_attention_is_within_its_budget(dtype, seed):
    """Sound: PyTorch's attention passes, in every dtype."""
    QKV = heads(seed)

    assert budget("attention", *QKV, dtype=dtype).score(torch_attention(dtype, *QKV)).verdict is Verdict.PASS


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@given(SEEDS)
def test_attention_that_divides_and_stores_its_queries_is_within_its_budget(dtype, seed):
    """As nn.MultiheadAttention does it: what Q loses is as large as Q, also where scores cancel."""
    rng = np.random.default_rng(seed)
    size, steps = (16.0, 64) if dtype == "bfloat16" else (64.0, 512)
    K = np.array([[[[0.0, 0.0, 0.0], [0.0, -size, -size]]]])
    Q = FORMATS[dtype].to_nearest(np.array([0.0, 1.0, -1.0]) * rng.integers(steps, 2 * steps, (1, 1, 4, 1)) / (2 * steps))
    Q[..., 2] += rng.integers(0, 9, (1, 1, 4)) / (2 * steps)
    V = np.array([[[[0.0], [1.0]]]])

    got = LowPrecision(dtype, scale_queries=True).attention(Q, K, V)

    assert budget("attention", Q, K, V, dtype=dtype).score(got).verdict is Verdict.PASS


@pytest.mark.parametrize("lanes", [2, 8])
@given(SEEDS)
def test_sums_side_by_side_are_within_the_budget_of_terms_that_alternate(lanes, seed):
    """Of runs of positive and of negative terms that cancel in one sum: each of several is as large as its half."""
    rng = np.random.default_rng(seed)
    signs = np.where(np.arange(64) // (lanes // 2) % 2, -1.0, 1.0)
    X = FORMATS["float32"].to_nearest(signs * rng.uniform(1, 1.0625, 64))[None, None]
    W = FORMATS["float32"].to_nearest(rng.uniform(1, 1.0625, (64, 3)))
    order = orders.lanes(lanes)

    got = LowPrecision("float32", order=order, product=summing(order)).output_projection(X, W=W)

    assert budget("output_projection", X, W=W, dtype="float32").score(got).verdict is Verdict.PASS


@pytest.mark.parametrize("dtype", DTYPES)
@given(SEEDS)
def test_a_scale_one_off_is_not(dtype, seed):
    """Tight: the same attention with √(d + 1) for √d fails, in every dtype."""
    Q, K, V = heads(seed)
    V = V + np.arange(6)[:, None] * 2  # values differ, so that weights show

    score = budget("attention", Q, K, V, dtype=dtype).score(torch_attention(dtype, Q, K * np.sqrt(4 / 5), V))

    assert score.verdict is Verdict.FAIL
    assert score.budget_used > 1


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float64"])  # there the oracle errs as much itself
def test_a_fault_spread_thin_shows_in_the_sums(dtype):
    """A gain of a few units of roundoff is within every single component's budget, and far outside the whole's."""
    Q, K, V = heads(3, tokens=48)
    allowed = budget("attention", Q, K, V + 4, dtype=dtype)

    score = allowed.score(allowed.exact * (1 + 2.5 * FORMATS[dtype].u))

    assert score.verdict is Verdict.FAIL
    assert score.kind != "component"


def test_a_probe_sees_what_it_looks_for():
    """A sum of errors along a named fault sees a tenth of that fault."""
    Q, K, V = heads(5, tokens=32)
    wrong = oracle("attention", Q, K * (1 + 2.0**-6), V)
    allowed = budget("attention", Q, K, V, dtype="bfloat16", probes={"scale": wrong})

    score = allowed.score(allowed.exact + (wrong - allowed.exact) / 2)

    assert score.kind == "probe: scale"
    assert score.worst > allowed.score(allowed.exact).worst


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_fails_whatever_the_rest(wrong):
    """One NaN or infinity where the exact result is finite: FAIL, at its place."""
    QKV = heads(1)
    got = torch_attention("float32", *QKV)
    got[0, 1, 2, 3] = wrong

    score = budget("attention", *QKV).score(got)

    assert (score.verdict, score.kind, score.index) == (Verdict.FAIL, "category", (0, 1, 2, 3))


def test_infinities_of_the_oracle_are_met_as_categories():
    """Where the exact result is not finite the answer must be the same kind of thing; a finite number is none."""
    X = np.array([[[np.inf, 1.0], [1.0, 2.0]]])
    allowed = budget("output_projection", X, W=np.eye(2) + 1)

    assert allowed.score(allowed.exact).verdict is Verdict.PASS
    assert allowed.score(np.where(np.isfinite(allowed.exact), allowed.exact, 1e30)).verdict is Verdict.FAIL
    assert allowed.score(-allowed.exact).verdict is Verdict.FAIL


def test_what_an_correct_run_overflows_is_not_judged():
    """Products beyond float16 may be infinite or not: counted as undecidable, and a case full of them proves nothing."""
    X, W = np.full((1, 1, 4), 2.0**9), np.full((4, 2), 2.0**9)
    score = budget("output_projection", X, W=W, dtype="float16").score(np.full((1, 1, 2), np.inf))

    assert (score.undecidable, score.verdict) == (2, Verdict.VACUOUS)


def test_a_verdict_repeats():
    """Seeds follow from the case: the same scores, whenever and in whatever order they are asked for."""
    first = budget("attention", *heads(7), dtype="bfloat16").scale
    for seed in range(3):
        budget("attention", *heads(seed), dtype="bfloat16")

    from properties.error_budget import budgets

    budgets.memory.budgets.clear()

    assert np.array_equal(budget("attention", *heads(7), dtype="bfloat16").scale, first)


def test_what_the_proven_bound_excludes_fails_below_the_mark():
    """A bfloat16 softmax errs by little more than half a unit in the last place: two units fail, though within 8 σ."""
    scores = dyadic(3, (1, 4), 2.0)
    allowed = budget("softmax", scores, dtype="bfloat16")
    got = allowed.exact.copy()
    got[0, 0] += 3 * FORMATS["bfloat16"].u * got[0, 0]

    score = allowed.score(got)

    assert score.kind == "bound"
    assert score.verdict is Verdict.FAIL


@pytest.mark.parametrize("step", ["mask", "generation", "split_heads", "gradients", "sofmax"])
def test_there_is_no_budget_where_nothing_is_rounded(step):
    """Copies, masks and token ids are equal or wrong; an unknown step is refused."""
    with pytest.raises(ValueError, match="step: expected one that computes with real numbers"):
        budget(step, np.zeros((1, 1, 2)))


def test_a_result_of_another_shape_is_refused():
    """Nothing is broadcast."""
    with pytest.raises(ValueError, match=r"expected a result of shape \(1, 2\), got \(2,\)"):
        budget("softmax", np.zeros((1, 2))).score(np.zeros(2))


def test_the_message_says_where_what_and_how_much():
    """Step, index, expected, got, the error in σ and as a multiple of the budget, and the dtype."""
    scores = dyadic(3, (2, 4), 2.0)
    got = oracle("softmax", scores)
    got[1, 2] += 0.25

    with pytest.raises(
        ClaimBroken, match=r"^softmax at \(1, 2\): expected 0\.\d+, got 0\.\d+: .* times what rounding in float32 allows"
    ) as broken:
        assert_rounding_only(Named(), "softmax", got, scores)

    assert broken.value.index == (1, 2)
    assert broken.value.budget_used > 1


def test_the_oracle_agreeing_with_itself_counts_for_nothing():
    """The same answer from somebody else is a comparison; from the oracle it is none."""
    scores = dyadic(3, (2, 4), 2.0)
    counts = record.start()

    assert_rounding_only(Named("reference", "float64"), "softmax", oracle("softmax", scores), scores)
    assert counts.compared == 0
    assert_rounding_only(Named("other", "float64"), "softmax", oracle("softmax", scores), scores)
    assert counts.compared == 8


def test_identical_means_bit_for_bit_but_for_the_sign_of_zero():
    """NaN equals NaN, −0 equals 0; one unit in the last place is a difference."""
    assert_identical(np.array([0.0, np.nan]), np.array([-0.0, np.nan]), "zeros")
    with pytest.raises(ClaimBroken, match=r"ones: expected .*1\.0.* at \(1,\)"):
        assert_identical(np.array([1.0, np.nextafter(1.0, 2)]), np.ones(2), "ones")
    with pytest.raises(ClaimBroken, match="expected shape"):
        assert_identical(np.ones(2), np.ones((1, 2)), "shapes")


def test_at_most_counts_nan_as_too_much():
    """Equality is allowed, NaN never."""
    assert_at_most(1.0, 1.0, "one")
    for value in (1.5, np.nan, np.inf):
        with pytest.raises(ClaimBroken, match="expected at most 1"):
            assert_at_most(value, 1.0, "one")


@given(SEEDS, st.integers(1, 200))
def test_a_sums_bound_holds_in_any_order(seed, terms):
    """Of float32 numbers added one after another, forwards and backwards."""
    numbers = np.random.default_rng(seed).standard_normal(terms).astype(np.float32)
    exact, size = numbers.astype(np.float64).sum(), np.abs(numbers.astype(np.float64)).sum()

    for order in (numbers, numbers[::-1], np.sort(numbers)):
        assert abs(float(np.cumsum(order)[-1]) - exact) <= sum_bound(terms, "float32", size)
