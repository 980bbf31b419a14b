"""Add & norm: what came in is added to what came out, and every row is brought to mean 0 and mean square 1."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.domain import drawn_inside
from properties.inputs.parameters import (
    SEEDS,
    Call,
    choices,
    decoder_layer_weights,
    dyadic,
    encoder_layer_weights,
    features,
    norm_weights,
    sizes,
    weights,
    widths,
)
from properties.verdict.refute import smallest_counterexample
from properties.verdicts import record

NO_EPS = 2.0**-100  # as good as eps → 0 for rows of spread ≥ 2⁻⁶, and still a number in every dtype but float16


@st.composite
def rows_for_a_norm(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = ("plain", "huge", "tiny", "constant", "offset", "eps")
) -> np.ndarray:
    """Rows that a norm finds hard: huge, tiny, constant, a small spread on a large offset, a variance of about eps."""
    b, n, _, _, d_model, _ = draw(sizes())
    X = draw(features(b, n, d_model))
    for i in range(n):
        match draw(st.sampled_from(kinds)):
            case "huge":
                X[:, i] *= 2.0**7
            case "tiny":
                X[:, i] *= 2.0**-10
            case "constant":
                X[:, i] = draw(st.sampled_from((0.0, 1.0, -3.0, 96.0)))
            case "offset":
                X[:, i] = 1e4 + X[:, i] * 0.1
            case "eps":
                X[:, i] *= 2.0**-8
            case _:
                pass
    return X


@st.composite
def norms(draw: st.DrawFn, X: np.ndarray) -> dict[str, np.ndarray | float]:
    """Gain, bias and eps for these rows."""
    return {**draw(norm_weights(X.shape[-1])), "eps": draw(st.sampled_from((1e-5, 1e-3, 1e-6)))}


def plain(d: int) -> dict[str, np.ndarray]:
    """A norm that leaves its rows as they come out of the division: gain 1, bias 0."""
    return {"gain": np.ones(d), "bias": np.zeros(d)}


@claim("R2", needs="layer_norm")
@given(rows_for_a_norm().flatmap(lambda X: st.tuples(st.just(X), norms(X))))
def test_norm_agrees_with_the_oracle(impl, drawn):
    """LayerNorm differs from the oracle by rounding alone, on rows of every size and with any gain, bias and eps."""
    X, norm = drawn
    X = impl.representable(X)

    assert_rounding_only(impl, "layer_norm", impl.layer_norm(X, **norm), X, **norm)


@claim("R1", needs="residual_norm")
@given(rows_for_a_norm(kinds=("plain", "tiny", "constant", "eps")).flatmap(lambda X: st.tuples(st.just(X), norms(X))), SEEDS)
def test_add_and_norm_agrees_with_the_oracle(impl, drawn, seed):
    """LayerNorm(X + Y) differs from the oracle by rounding alone, and does not care which of the two came in."""
    X, norm = drawn
    Y = dyadic(seed, X.shape, 2.0)
    got = impl.residual_norm(X, Y, **norm)

    assert_rounding_only(impl, "residual_norm", got, X, Y, **norm)
    assert_identical(impl.residual_norm(Y, X, **norm), got, "residual_norm(Y, X)")


@claim("R1", needs="residual_norm")
@given(rows_for_a_norm().flatmap(lambda X: st.tuples(st.just(X), norms(X))))
def test_a_zero_sublayer_leaves_its_input(impl, drawn):
    """Where the sublayer says nothing the sum is X unchanged, so that add & norm is the norm of X alone."""
    X, norm = drawn
    X = impl.representable(X)

    got = impl.residual_norm(X, np.zeros_like(X), **norm)

    assert_rounding_only(impl, "layer_norm", got, X, **norm)


def silenced(layer: dict, *sublayers: str) -> dict:
    """The same layer with sublayers that answer 0, whatever they are asked."""
    last = {"self_attention": ("W_O", "b_O"), "cross_attention": ("W_O", "b_O"), "feed_forward": ("W_2", "b_2")}
    silent = dict(layer)
    for name in sublayers:
        weights = silent[name]
        silent[name] = {k: np.zeros_like(w) if k in last[name] and w is not None else w for k, w in weights.items()}
    return silent


@st.composite
def silent_layers(draw: st.DrawFn, of_decoder: bool) -> Call:
    """A pre-norm layer all of whose sublayers are silent."""
    b, n, m, h, d_model, d_ff = draw(sizes())
    X, M = draw(features(b, n, d_model)), draw(features(b, m, d_model))
    pre = {**draw(choices(h)), "norm": "pre"}
    if of_decoder:
        layer = silenced(draw(decoder_layer_weights(d_model, d_ff)), "self_attention", "cross_attention", "feed_forward")
        return Call((X, M), {"layer": layer, **pre})
    return Call((X,), {"layer": silenced(draw(encoder_layer_weights(d_model, d_ff)), "self_attention", "feed_forward"), **pre})


@claim("R1", needs="encoder_layer")
@given(silent_layers(of_decoder=False))
def test_a_zero_encoder_layer_is_the_identity(impl, call):
    """With norms before the sublayers and sublayers that answer 0, the residual path alone is left: X, bit for bit."""
    assert_identical(impl.encoder_layer(*call.args, **call.kwargs), call.args[0], "encoder layer of silent sublayers")


@claim("R1", needs="decoder_layer")
@given(silent_layers(of_decoder=True))
def test_a_zero_decoder_layer_is_the_identity(impl, call):
    """The same for the decoder's three sublayers."""
    assert_identical(impl.decoder_layer(*call.args, **call.kwargs), call.args[0], "decoder layer of silent sublayers")


@st.composite
def uneven_rows(draw: st.DrawFn) -> np.ndarray:
    """One row (1, 1, d) whose numbers are not all the same."""
    d = draw(widths(2, 16))
    row = draw(weights(d).filter(lambda row: np.ptp(row) > 0))
    return row[None, None] * draw(st.sampled_from((1.0, 2.0**5, 2.0**-2)))


@claim("R2", needs="layer_norm")
def test_a_norm_does_not_keep_values_below_one(impl):
    """Refuted: "the norm makes sure that nothing is above 1". The smallest row found whose norm is above 1 is reported."""

    def normalised(X: np.ndarray) -> np.ndarray:
        return impl.layer_norm(X, **plain(X.shape[-1]))

    rows = (
        widths(2, 6)
        .flatmap(lambda d: st.lists(st.integers(0, 9), min_size=d, max_size=d))
        .map(lambda row: np.array([[row]], float))
    )
    X = smallest_counterexample(rows, lambda X: np.abs(normalised(X)).max() > 1, "a row whose norm exceeds 1")

    record.counterexample(f"x = {X[0, 0].tolist()} has LayerNorm(x) = {normalised(X)[0, 0].round(6).tolist()}")


@claim("R2", needs="layer_norm")
@given(uneven_rows())
def test_one_is_the_floor_of_a_norms_maximum_and_the_root_of_d_minus_one_its_ceiling(impl, X):
    """Corrected: with eps → 0 the mean square is 1, so 1 ≤ max|y| ≤ √(d − 1) for every row that is not constant."""
    d = X.shape[-1]
    y = impl.layer_norm(X, **plain(d), eps=NO_EPS)[0, 0]
    rounding = sum_bound(d, impl, np.sqrt(d))

    assert_at_most(1 - np.abs(y).max(), rounding, "1 − max|y|")
    assert_at_most(np.abs(y).max() - np.sqrt(d - 1), rounding, "max|y| − √(d − 1)")
    assert_at_most(abs(y.sum()), d * rounding, "|Σ y|")
    assert_at_most(abs((y * y).mean() - 1), 2 * np.sqrt(d) * rounding, "|mean y² − 1|")


@claim("R2", needs="layer_norm")
@given(widths(2, 64), st.integers(0, 63), st.integers(-3, 6), st.sampled_from((1.0, -1.0)))
def test_a_one_hot_row_attains_the_ceiling(impl, d, place, exponent, sign):
    """A row with a single number, however large, comes out with √(d − 1) in that place and −1/√(d − 1) in the others."""
    X = np.zeros((1, 1, d))
    X[..., place % d] = sign * 2.0**exponent
    expected = np.full(d, -sign / np.sqrt(d - 1))
    expected[place % d] = sign * np.sqrt(d - 1)

    y = impl.layer_norm(X, **plain(d), eps=NO_EPS)

    assert_rounding_only(impl, "layer_norm", y, X, **plain(d), eps=NO_EPS)
    assert_at_most(np.abs(y[0, 0] - expected).max(), sum_bound(d, impl, np.sqrt(d)), "distance to the ceiling")


@claim("R2", needs="layer_norm")
@given(st.integers(1, 32), SEEDS, st.integers(-3, 6))
def test_a_row_of_plus_and_minus_one_attains_the_floor(impl, half, seed, exponent):
    """Half +a and half −a comes out as +1 and −1: nothing above 1, and nothing below it either."""
    half = drawn_inside(d_model=2 * half)["d_model"] // 2
    signs = np.random.default_rng(seed).permutation(np.repeat([1.0, -1.0], half))
    X = (signs * 2.0**exponent)[None, None]

    y = impl.layer_norm(X, **plain(2 * half), eps=NO_EPS)

    assert_at_most(np.abs(y[0, 0] - signs).max(), sum_bound(2 * half, impl, 1.0), "distance to the floor")


@claim("R2", needs="layer_norm")
@given(widths(2, 12), st.sampled_from((0.0, 1.0, -3.0, 96.0)), SEEDS)
def test_a_constant_row_becomes_the_bias(impl, d, value, seed):
    """Nothing is left of a row without differences: its norm is the bias (eps keeps 0/√0 away)."""
    bias = dyadic(seed, (d,))

    got = impl.layer_norm(np.full((1, 1, d), value), gain=np.ones(d), bias=bias)

    assert_rounding_only(impl, "layer_norm", got, np.full((1, 1, d), value), gain=np.ones(d), bias=bias)
    assert np.isfinite(got).all()


@claim("R2", needs="layer_norm")
@given(uneven_rows(), st.integers(-2, 4))
def test_the_norm_does_not_see_a_rows_scale(impl, X, exponent):
    """With eps → 0, LayerNorm(a·x) = LayerNorm(x) for a > 0."""
    norm = {**plain(X.shape[-1]), "eps": NO_EPS}

    got = impl.layer_norm(X * 2.0**exponent, **norm)

    assert_rounding_only(impl, "layer_norm", got, X, **norm)


@claim("R2", needs="layer_norm")
@given(rows_for_a_norm(kinds=("plain", "constant")).flatmap(lambda X: st.tuples(st.just(X), norms(X))), st.integers(0, 4), SEEDS)
def test_layer_norm_is_row_wise(impl, drawn, i, seed):
    """Changing one row leaves every other row of the result bit-identical, and moves its own as the oracle predicts."""
    X, norm = drawn
    i %= X.shape[1]
    changed = X.copy()
    changed[:, i] = dyadic(2 + seed, X[:, i].shape, 2.0**6)
    others = np.delete(np.arange(X.shape[1]), i)

    before, after = impl.layer_norm(X, **norm), impl.layer_norm(changed, **norm)

    assert_identical(after[:, others], before[:, others], f"rows other than {i}")
    assert_rounding_only(impl, "layer_norm", after, changed, **norm)
