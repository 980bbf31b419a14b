"""Positional encoding: where a token stands, as sines and cosines of its position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.inputs.attention import embeddings
from properties.verdict.refute import smallest_counterexample
from properties.verdicts import record
from reference.positional_encoding import positional_encoding

LENGTHS = st.integers(1, 20) | st.sampled_from((64, 65, 257, 600))
WIDTHS = st.integers(1, 12).map(lambda pairs: 2 * pairs) | st.sampled_from((64, 512))


def rounding(impl, n: int) -> float:
    """How far an encoding of places up to n may be from the exact one: an angle in float32, and the result in the dtype."""
    angles = "float64" if impl.dtype == "float64" else "float32"
    return sum_bound(4, angles, max(n, 1)) + sum_bound(1, impl, 1.0)


def frequencies(d_model: int) -> np.ndarray:
    """ω_i, one for each pair of a sine and a cosine."""
    return 10000.0 ** (-np.arange(0, d_model, 2) / d_model)


def sines_and_cosines(impl, n: int, d_model: int) -> tuple[np.ndarray, np.ndarray]:
    """The implementation's sines (n, d_model/2) and its cosines."""
    PE = impl.positional_encoding(n, d_model)
    return PE[:, 0::2], PE[:, 1::2]


@claim("PE1", needs="positional_encoding")
@given(LENGTHS, WIDTHS)
def test_encoding_agrees_with_the_oracle(impl, n, d_model):
    """The sine and cosine of p·ω of each place differ from the oracle by rounding alone."""
    assert_rounding_only(impl, "positional_encoding", impl.positional_encoding(n, d_model), n, d_model)


@claim("PE1", needs="positional_encoding")
@given(WIDTHS)
def test_position_zero_is_sine_and_cosine_of_zero(impl, d_model):
    """Sin 0 = 0 and cos 0 = 1 need no rounding: the first row is exact in every dtype."""
    sines, cosines = sines_and_cosines(impl, 1, d_model)

    assert_identical(sines, np.zeros_like(sines), "sines of place 0")
    assert_identical(cosines, np.ones_like(cosines), "cosines of place 0")


@claim("PE1", needs="positional_encoding")
@given(LENGTHS, WIDTHS)
def test_positional_encoding_of_a_longer_sequence_has_the_same_prefix(impl, n, d_model):
    """A place's encoding does not depend on how many places are asked for (to the rounding of a vectorised sine)."""
    longer = impl.positional_encoding(n + 3, d_model)

    assert_rounding_only(impl, "positional_encoding", longer[:n], n, d_model)


@claim("PE1", needs="positional_encoding")
@given(st.integers(1, 5), st.integers(0, 8).map(lambda half: 2 * half + 1))
def test_odd_d_model_is_handled_as_declared(impl, n, d_model):
    """Features come in pairs of a sine and a cosine: an odd number is refused, or one of a pair is left over."""
    if impl.conventions.odd_d_model == "refused":
        refused = impl.refuses("positional_encoding", n, d_model)
        assert_identical(np.array(refused), np.array(True), f"refusal of d_model = {d_model}")
        return

    PE = impl.positional_encoding(n, d_model)

    assert_at_most(np.abs(PE).max(), 1.0, "max |PE|")
    assert_identical(np.isin(PE[0], (0.0, 1.0)), np.full(d_model, True), "sines and cosines of place 0, which are 0 and 1")


@claim("PE2", needs="positional_encoding")
def test_values_do_not_stay_below_one(impl):
    """Refuted: "every value lies strictly between −1 and 1". The cosine of place 0 is 1."""
    cases = st.tuples(st.integers(1, 16), st.integers(1, 8).map(lambda pairs: 2 * pairs))
    n, d_model = smallest_counterexample(
        cases, lambda case: impl.positional_encoding(*case).max() >= 1, "a value that is not below 1"
    )

    p, j = np.argwhere(impl.positional_encoding(n, d_model) >= 1)[0]
    record.counterexample(f"PE[{p}, {j}] = 1 at d_model = {d_model}")


@claim("PE2", needs="positional_encoding")
@given(LENGTHS, WIDTHS)
def test_values_lie_between_minus_one_and_one(impl, n, d_model):
    """Corrected: −1 ≤ PE ≤ 1, with no rounding beyond."""
    assert_at_most(np.abs(impl.positional_encoding(n, d_model)).max(), 1.0, "max |PE|")


@claim("PE3", needs="positional_encoding")
@given(st.integers(1, 40), st.integers(1, 40), WIDTHS)
def test_a_step_moves_a_feature_by_at_most_its_frequency(impl, n, step, d_model):
    """|PE[p+δ] − PE[p]| ≤ δ·ω for whole δ, to rounding."""
    limit = step * frequencies(d_model) + 2 * rounding(impl, n + step)

    for waves in sines_and_cosines(impl, n + step, d_model):
        moved = np.abs(waves[step:] - waves[:-step])
        assert_at_most((moved - limit).max(), 0.0, f"|PE[p+{step}] − PE[p]| − {step}·ω")


@claim("PE3", oracle_only=True)
@given(st.floats(0, 100), st.floats(2.0**-20, 4), WIDTHS)
def test_however_small_the_step_the_encoding_is_continuous(impl, place, step, d_model):
    """The same for real places and steps, where the oracle takes them."""
    here, there = positional_encoding(np.array([place, place + step]), d_model)
    limit = np.repeat((place + step - place) * frequencies(d_model), 2)

    assert_at_most((np.abs(there - here) - limit).max(), sum_bound(4, "float64", place + step + 1), "|PE[p+δ] − PE[p]| − δ·ω")


@claim("PE4", needs="positional_encoding", dtypes=("bfloat16", "float16"))
def test_two_positions_coincide_in_few_features_and_low_precision(impl):
    """Refuted: "no two positions look alike". With two features of few bits two places have the same row."""

    def alike(n: int) -> bool:
        return len(np.unique(impl.positional_encoding(n, 2), axis=0)) < n

    n = smallest_counterexample(st.integers(1, 4096), alike, "two places with the same row")

    PE = impl.positional_encoding(n, 2)
    first = int(np.flatnonzero((PE[-1] == PE).all(axis=1))[0])
    record.counterexample(f"PE[{first}] = PE[{n - 1}] = {PE[-1].tolist()} at d_model = 2 in {impl.dtype}")


@claim("PE4", needs="positional_encoding")
@given(st.sampled_from((2, 16, 258, 700, 1030)))
def test_no_two_positions_coincide_in_512_features(impl, n):
    """Corrected: at d_model = 512 all rows differ, in every dtype; places counted in bfloat16 would meet at 256 and 257."""
    rows = np.unique(impl.positional_encoding(n, 512), axis=0)

    assert_at_most(n - len(rows), 0, "rows that are there twice")


@claim("PE5", needs="positional_encoding")
def test_two_features_coincide_at_a_single_position(impl):
    """Refuted: "no two features look alike". Place 0 alone says 0 for every sine and 1 for every cosine."""
    cases = st.tuples(st.integers(1, 16), st.integers(1, 8).map(lambda pairs: 2 * pairs))

    def alike(case: tuple[int, int]) -> bool:
        return len(np.unique(impl.positional_encoding(*case), axis=1).T) < case[1]

    n, d_model = smallest_counterexample(cases, alike, "two equal columns")

    record.counterexample(
        f"at n = {n}, d_model = {d_model} only {len(np.unique(impl.positional_encoding(n, d_model), axis=1).T)} columns differ"
    )


@claim("PE5", needs="positional_encoding", dtypes=("bfloat16", "float16"))
def test_features_coincide_in_the_articles_own_matrix(impl):
    """Refuted by rounding, too: slow waves of the 16×512 matrix become the same column."""
    different = len(np.unique(impl.positional_encoding(16, 512), axis=1).T)

    assert_at_most(different, 511, "different columns of 16×512")
    record.counterexample(f"of the 512 columns at n = 16 only {different} differ in {impl.dtype}")


@claim("PE5", needs="positional_encoding", dtypes=("float64",))
@given(st.integers(2, 20), WIDTHS)
def test_no_two_features_coincide_from_two_positions_on(impl, n, d_model):
    """Corrected: where rounding does not interfere, n ≥ 2 places tell all features apart."""
    columns = np.unique(impl.positional_encoding(n, d_model), axis=1).T

    assert_at_most(d_model - len(columns), 0, "columns that are there twice")


@claim("PE6", needs="positional_encoding")
@given(st.integers(1, 40), WIDTHS)
def test_the_dot_product_of_two_positions_depends_on_their_distance_alone(impl, n, d_model):
    """⟨PE[p], PE[q]⟩ = Σ cos((p − q)·ω), to rounding."""
    PE = impl.positional_encoding(n, d_model)
    distance = np.arange(n)[:, None] - np.arange(n)
    by_distance = np.cos(distance[..., None] * frequencies(d_model)).sum(axis=-1)

    allowed = d_model * 2 * rounding(impl, n)  # each of d_model products is off by at most two roundings
    assert_at_most(np.abs(PE @ PE.T - by_distance).max(), allowed, "|⟨PE[p], PE[q]⟩ − Σ cos((p − q)·ω)|")


@claim("PE6", needs="positional_encoding")
@given(st.integers(1, 20), st.integers(0, 20), WIDTHS)
def test_a_shift_of_k_positions_is_one_rotation(impl, n, k, d_model):
    """PE[p+k] = R_k·PE[p]: each pair turned by the angle that PE[k] itself holds, whatever p is; to rounding."""
    sines, cosines = sines_and_cosines(impl, n + k, d_model)
    sin_k, cos_k = sines[k], cosines[k]
    turned = sines[:n] * cos_k + cosines[:n] * sin_k, cosines[:n] * cos_k - sines[:n] * sin_k

    for name, waves, rotated in zip(("sine", "cosine"), (sines, cosines), turned, strict=True):
        assert_at_most(np.abs(waves[k:] - rotated).max(), 5 * rounding(impl, n + k), f"|PE[p+{k}] − R·PE[p]| of a {name}")


@claim("PE7", needs="positional_encoding")
@given(LENGTHS, WIDTHS)
def test_every_position_has_the_same_norm(impl, n, d_model):
    """Corrected: ‖PE[p]‖² = d_model/2 at every place, to rounding, while the whole number p grows without limit."""
    squares = (impl.positional_encoding(n, d_model) ** 2).sum(axis=1)

    assert_at_most(np.abs(squares - d_model / 2).max(), 2 * d_model * rounding(impl, n), "|‖PE[p]‖² − d_model/2|")


@claim("PE7", needs=("embedding", "positional_encoding"))
def test_sines_exceed_an_embedding_that_is_not_scaled(impl):
    """Refuted: "sines do not swamp small embeddings". A token of norm 1 is shorter than its place's encoding, unless scaled."""

    def norms(d_model: int, *, scale: bool) -> tuple[float, float]:
        token = impl.embedding(np.array([[0]]), table=np.eye(1, d_model), scale=scale)
        return float(np.linalg.norm(token)), float(np.linalg.norm(impl.positional_encoding(1, d_model)))

    def swamped(d_model: int, *, scale: bool) -> bool:
        token, place = norms(d_model, scale=scale)
        return token < place

    widths = st.integers(1, 256).map(lambda pairs: 2 * pairs)
    d_model = smallest_counterexample(
        widths, lambda d_model: swamped(d_model, scale=False), "an encoding longer than a token of norm 1"
    )
    token, place = norms(512, scale=False)
    record.counterexample(f"from d_model = {d_model} on the encoding is the longer one; at 512 it is {place:g} against {token:g}")

    for d_model in (4, 64, 512):  # what holds: times √d_model the token is longer by √2
        assert_identical(
            np.array(swamped(d_model, scale=True)), np.array(False), f"a scaled token is swamped at d_model = {d_model}"
        )


@claim("E3", needs=("embedding", "positional_encoding"))
@given(embeddings(widths=(2, 4, 8, 16), repeat=True), st.booleans())
def test_a_repeated_token_differs_from_position_to_position(impl, call, scale):
    """The sum of embedding and encoding has the embedding's shape, and rows of the same token that differ."""
    tokens = impl.embedding(*call.args, **call.kwargs, scale=scale)
    X = impl.representable(tokens + impl.positional_encoding(*tokens.shape[1:]))

    assert_identical(np.array(X.shape), np.array(tokens.shape), "shape of the input matrix")
    assert_identical(tokens[:, -1], tokens[:, 0], "embedding of a repeated token")
    assert_at_most(-np.abs(X[:, -1] - X[:, 0]).max(axis=-1).min(), -rounding(impl, 8), "−difference of two places of one token")


@claim("E3", needs=("embedding", "positional_encoding"))
def test_a_large_feature_rounds_the_position_away(impl):
    """Its limit: once a feature is so large that its spacing exceeds the sine, two places of a token give the same number."""

    def inputs(exponent: int) -> np.ndarray:
        tokens = impl.embedding(np.array([[0, 0, 0]]), table=np.full((1, 2), 2.0**exponent), scale=False)
        return impl.representable(tokens + impl.positional_encoding(3, 2))[0]

    most = 15 if impl.dtype == "float16" else 64
    exponent = smallest_counterexample(
        st.integers(0, most), lambda exponent: bool((inputs(exponent)[1] == inputs(exponent)[2]).any()), "two equal numbers"
    )

    record.counterexample(f"2^{exponent} + PE[1] and 2^{exponent} + PE[2] have a feature in common in {impl.dtype}")
