"""Output projection: a score for every token of the vocabulary, and from scores a distribution over the next token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.oracle import oracle
from properties.inputs.attention import full_mantissa
from properties.inputs.parameters import SEEDS, Call, features, sizes, weights
from properties.verdict.refute import smallest_counterexample
from properties.verdicts import record


@st.composite
def projections(draw: st.DrawFn) -> Call:
    """Rows, a matrix to the vocabulary, and a bias or none."""
    b, n, _, _, d_model, vocab = draw(sizes())
    return Call((draw(features(b, n, d_model)),), {"W": draw(weights(d_model, vocab)), "b": draw(st.none() | weights(vocab))})


def given_logits(z: np.ndarray) -> Call:
    """A projection whose logits are exactly z, in every row: one feature that is 1 everywhere, and z for its weights."""
    return Call((np.ones((1, 1, 1)),), {"W": z[None]})


@claim("O1", needs="output_projection")
@given(projections())
def test_logits_agree_with_the_oracle(impl, call):
    """X W + b, a row of scores for every token, differs from the oracle by rounding alone."""
    got = impl.output_projection(*call.args, **call.kwargs)

    assert_rounding_only(impl, "output_projection", got, *call.args, **call.kwargs)


@claim("O1", needs="output_projection")
@given(projections(), SEEDS)
def test_logits_count_to_the_last_digit(impl, call, seed):
    """Rows and weights that use every digit of the dtype are judged like any others: no product may cut them short."""
    X, W = full_mantissa(impl, call.args[0], seed), full_mantissa(impl, call.kwargs["W"], seed + 1)

    got = impl.output_projection(X, W=W, b=call.kwargs["b"])

    assert_rounding_only(impl, "output_projection", got, X, W=W, b=call.kwargs["b"])


@claim("O1", needs="output_projection")
@given(projections(), SEEDS)
def test_logits_of_small_integers_are_exact(impl, call, seed):
    """Sums of small integers have no rounding: equality is bit for bit in every dtype."""
    rng = np.random.default_rng(seed)
    whole = {name: None if w is None else rng.integers(-2, 3, w.shape).astype(np.float64) for name, w in call.kwargs.items()}
    X = rng.integers(-2, 3, call.args[0].shape).astype(np.float64)

    assert_identical(impl.output_projection(X, **whole), oracle("output_projection", X, **whole), "logits")


@claim("O1", needs="next_token")
@given(projections())
def test_probabilities_agree_with_the_oracle(impl, call):
    """softmax(X W + b) differs from the oracle by rounding alone."""
    got = impl.next_token(*call.args, **call.kwargs)

    assert_rounding_only(impl, "next_token", got, *call.args, **call.kwargs)


@claim("O1", needs="next_token")
@given(projections())
def test_every_row_is_a_distribution_over_the_vocabulary(impl, call):
    """No probability is negative or above 1, and each row sums to 1 within the rounding of the dtype."""
    got = impl.next_token(*call.args, **call.kwargs)
    vocab = got.shape[-1]

    assert_at_most(-got.min(), 0.0, "−smallest probability")
    assert_at_most(np.abs(got.sum(axis=-1) - 1).max(), sum_bound(vocab, impl, 1.0), "|Σ p − 1|")


@st.composite
def clear_winners(draw: st.DrawFn) -> np.ndarray:
    """Small whole logits of which one is larger than all others."""
    z = np.array(draw(st.lists(st.integers(-4, 4), min_size=1, max_size=8)), dtype=np.float64)
    z[draw(st.integers(0, len(z) - 1))] = z.max() + 1
    return z


@claim("O3", needs="next_token")
def test_different_logits_may_have_equal_probabilities(impl):
    """Refuted in every dtype: "the largest probability marks the largest logit". Two logits so close that their p are equal."""

    def tied(k: int) -> bool:
        call = given_logits(np.array([0.0, 2.0**-k]))
        first, second = impl.next_token(*call.args, **call.kwargs)[0, 0]
        return bool(first == second)

    most = 24 if impl.dtype == "float16" else 64  # 2^-24 is the smallest number float16 has
    k = smallest_counterexample(st.integers(1, most), tied, "two different logits of equal probability")

    p = impl.next_token(*given_logits(np.array([0.0, 2.0**-k])).args, **given_logits(np.array([0.0, 2.0**-k])).kwargs)[0, 0]
    record.counterexample(f"z = [0, 2^-{k}] has softmax(z) = {p.tolist()} in {impl.dtype}: the probabilities tie")


@claim("O3", needs="next_token")
@given(clear_winners())
def test_a_logit_that_leads_clearly_has_the_largest_probability(impl, z):
    """Corrected: where the largest logit leads by more than rounding, its token has the one largest probability."""
    call = given_logits(z)

    p = impl.next_token(*call.args, **call.kwargs)[0, 0]

    winners = (p == p.max()).astype(np.float64)
    assert_identical(winners, (z == z.max()).astype(np.float64), "tokens of the largest probability")
