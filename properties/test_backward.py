"""Backward, step by step: what the gradients of attention, softmax, LayerNorm and feed-forward must be.

By an implementation's own `attention_backward` and its like, or by autograd of what its forward returns.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.formats import FORMATS
from properties.implementations.oracle import oracle
from properties.inputs.attention import farthest, full, full_mantissa, scores
from properties.inputs.backward import backward_calls, feed_forward_backward_calls, size_of_products, whole_call
from properties.inputs.parameters import SEEDS, Call, dyadic, gains
from properties.test_residual_norm import rows_for_a_norm
from properties.test_sizes import at_the_edges

INPUTS = ("Q", "K", "V")
LENGTHS = (1, 2, *at_the_edges(32), 65, 129, 200)  # of rows; of them none but the edges is a multiple of a block
ROWS = (1, 33, 65, 130, 260, 1040)  # numbers of rows that every dtype can say
ONLY_dO = "+contiguous" * 4  # the layout before it is of the first argument alone


# ---- inputs ----


def answerable(impl: Any, call: Call) -> Call:
    """The same where a fully masked row gets zeros; for an implementation of another convention, such rows attend everywhere."""
    *tensors, mask = call.args
    if mask is None or impl.conventions.fully_masked_row == "zeros":
        return call
    return Call((*tensors, mask | ~mask.any(axis=-1, keepdims=True)), {})


def lengths() -> Iterator[tuple[int, int]]:
    """Numbers of queries and keys: each long one beside a short one, both ways, and with itself."""
    for length in LENGTHS:
        yield from {(length, 3), (3, length), (length, length)}


# ---- B1: attention ----


@claim("B1", needs="attention_backward")
@given(backward_calls(fully_masked=True), SEEDS)
def test_attention_backward_agrees_with_the_oracle(impl, call, seed):
    """dQ, dK and dV differ from the oracle's by rounding alone, for scores of every pattern and masks of every shape.

    In half of the cases numbers use every digit of the dtype: no product may cut them short.
    """
    *tensors, mask = answerable(impl, call).args
    if seed % 2:
        tensors = [full_mantissa(impl, X, seed + k) for k, X in enumerate(tensors)]

    got = impl.attention_backward(*tensors, mask)

    assert_rounding_only(impl, "attention_backward", got, *tensors, mask)


@claim("B1", needs="attention_backward")
def test_attention_backward_at_every_length(impl):
    """1 to 200 queries and keys, block edges among them: bit for bit with one key in sight, within a few roundings with more."""
    for seed, (n, m) in enumerate(lengths()):
        for tied in (1, 4):
            assert_whole(impl, whole_call(seed, n, m, 4, 3, tied), tied, f"{n} queries, {m} keys")


@claim("B1", needs="attention_backward")
def test_a_gradient_may_lie_in_any_memory(impl):
    """A dO that is not contiguous, or expanded as a sum's is, gives what a contiguous one gives; so do inputs that are not."""
    for layout in ("transposed", "strided", "offset", "expanded"):
        for place in ("", ONLY_dO):
            for tied, (n, m) in ((1, (5, 7)), (4, (5, 7)), (4, (40, 33))):
                dO, *rest = whole_call(n, n, m, 4, 3, tied).args
                dO = dO if layout != "expanded" else np.broadcast_to(dO[..., :1], dO.shape)
                where = f"{layout} {'dO' if place else 'arrays'}"
                assert_whole(impl.reading(layout + place), Call((dO, *rest), {}), tied, where)


def assert_whole(impl: Any, call: Call, tied: int, where: str) -> None:
    """The gradients of a `whole_call` are exact with one key in sight, and right within a few roundings with more."""
    got = impl.attention_backward(*call.args)
    for name, exact in oracle("attention_backward", *call.args).items():
        if tied == 1:
            assert_identical(got[name], exact, f"{name}, {where}")
        else:
            rounding = sum_bound(16, impl, 2 * float(np.abs(exact).max()))
            assert_at_most(np.abs(got[name] - exact).max(), rounding, f"|{name} − exact|, {where}")


@claim("B1", needs="attention_backward")
@given(backward_calls())
def test_a_backward_done_again_gives_the_same(impl, call):
    """Nothing is left over from the first time: the same numbers, bit for bit."""
    first, again = (impl.attention_backward(*call.args) for _ in range(2))

    for name, gradient in first.items():
        assert_identical(again[name], gradient, f"{name}, the second time")


@claim("B1", needs="attention_gradient", dtypes=("float64", "float32", "bfloat16"))
@given(backward_calls(), st.sampled_from(INPUTS), st.integers(1, 2))
def test_each_gradient_can_be_asked_for_alone(impl, call, of, passes):
    """Where only Q, only K or only V requires a gradient it is the same, on the first pass through the graph and the second."""
    got = impl.attention_gradient(*call.args, of=of, passes=passes)

    assert_rounding_only(impl, "attention_gradient", got, *call.args, of=of, passes=passes)


# ---- B2: rows that sum to 0 ----


@claim("B2", needs="softmax_backward")
@given(scores(), SEEDS)
def test_softmax_backward_agrees_with_the_oracle(impl, rows, seed):
    """dS differs from the oracle's by rounding alone; a score of −∞ gets exactly 0."""
    dP = dyadic(2 + seed, rows.shape, 2.0)

    got = impl.softmax_backward(dP, rows)

    assert_rounding_only(impl, "softmax_backward", got, dP, rows)
    hidden = got[rows == -np.inf]
    assert_identical(hidden, np.zeros_like(hidden), "gradient of a score of −∞")


@claim("B2", needs="softmax_backward")
@given(scores(), SEEDS)
def test_a_row_of_score_gradients_sums_to_zero(impl, rows, seed):
    """Whatever the weights' gradients are; and where these are all alike, each is 0 to rounding."""
    dP = dyadic(2 + seed, rows.shape, 2.0)

    got, alike = impl.softmax_backward(dP, rows), impl.softmax_backward(np.full_like(dP, 1.5), rows)

    rounding = 4 * sum_bound(rows.shape[-1] + 4, impl, 2.0)
    assert_at_most(np.abs(got.sum(axis=-1)).max(), rounding, "|Σ_j dS_ij|")
    assert_at_most(np.abs(alike).max(), rounding, "|dS| where all weights have the same gradient")


@claim("B2", needs="attention_backward")
@given(backward_calls())
def test_the_gradients_of_all_keys_sum_to_zero(impl, call):
    """The same vector added to every key shifts each row of scores by a constant: no feature of Σ_j dK_j is anything but 0."""
    _, Q, K, _, _ = call.args

    dK = impl.attention_backward(*call.args)["dK"]

    n, m, d_k = *Q.shape[2:3], *K.shape[2:]
    size = (size_of_products(call) * np.abs(Q)).sum(axis=2) / np.sqrt(d_k)  # (b, h, d_k)
    rounding = 6 * sum_bound(n + m + call.args[0].shape[-1] + 8, impl, float(size.max(initial=0.0)))
    assert_at_most(np.abs(dK.sum(axis=2)).max(initial=0.0), rounding, "|Σ_j dK_j|")


# ---- B3: who learns nothing ----


@claim("B3", needs="attention_backward")
@given(backward_calls(), SEEDS)
def test_a_masked_key_learns_nothing_and_teaches_nothing(impl, call, seed):
    """Whatever is in a key and value masked for all: their gradients are exactly 0, and no other gradient moves by a bit."""
    dO, Q, K, V, mask = call.args
    hidden = np.random.default_rng(seed).random(K.shape[2]) < 0.5
    hidden[seed % len(hidden)] = len(hidden) > 1
    hidden[(seed + 1) % len(hidden)] = False
    seen = answerable(impl, Call((dO, Q, K, V, full(mask, *Q.shape[:3], K.shape[2]) & ~hidden), {})).args[4] & ~hidden
    seen = seen if impl.conventions.fully_masked_row == "zeros" else seen | (~seen.any(axis=-1, keepdims=True) & ~hidden)
    blocked = impl.conventions.non_finite_behind_mask == "blocked"
    junk_V = np.nan if blocked else farthest(impl.dtype)
    junk_K = np.nan if blocked and impl.conventions.non_finite_masked_key == "blocked" else farthest(impl.dtype)
    full_of_junk = np.where(hidden[:, None], junk_K, K), np.where(hidden[:, None], junk_V, V)
    zeros = np.where(hidden[:, None], 0.0, K), np.where(hidden[:, None], 0.0, V)

    got, plain = (impl.attention_backward(dO, Q, *each, seen) for each in (full_of_junk, zeros))

    for name, gradient in plain.items():
        assert_identical(got[name], gradient, f"{name} with junk behind the mask")
        if name != "dQ":
            assert_identical(got[name][:, :, hidden], np.zeros_like(gradient[:, :, hidden]), f"{name} of masked keys")


@claim("B3", needs="attention_backward")
@given(backward_calls(masked=True, fully_masked=True))
def test_a_fully_masked_row_has_finite_zero_gradients(impl, call):
    """Its dQ is exactly 0, and what it would have said reaches no key: the others are as if its dO were 0."""
    dO, Q, K, V, mask = answerable(impl, call).args
    rows = ~full(mask, *Q.shape[:3], K.shape[2]).any(axis=-1, keepdims=True)

    got = impl.attention_backward(dO, Q, K, V, mask)
    silent = impl.attention_backward(np.where(rows, 0.0, dO), Q, K, V, mask)

    assert_identical(got["dQ"] * rows, np.zeros_like(Q), "dQ of fully masked rows")
    for name, gradient in silent.items():
        assert_identical(got[name], gradient, f"{name} by a fully masked row")


@claim("B3", needs="attention_backward")
@given(backward_calls(), SEEDS)
def test_rows_without_a_gradient_give_and_get_nothing(impl, call, seed):
    """A dO of zeros gives zeros everywhere; of single rows, zeros in those rows of dQ, exactly."""
    dO, *rest = call.args
    silent = np.random.default_rng(seed).random((*dO.shape[:3], 1)) < 0.5

    nothing = impl.attention_backward(np.zeros_like(dO), *rest)
    dQ = impl.attention_backward(np.where(silent, 0.0, dO), *rest)["dQ"]

    for name, gradient in nothing.items():
        assert_identical(gradient, np.zeros_like(gradient), f"{name} of a dO of zeros")
    assert_identical(dQ * silent, np.zeros_like(dQ), "dQ where dO is 0")


# ---- B4: forward and backward ----


@claim("B4", needs=("attention", "attention_backward"))
def test_forward_and_backward_are_adjoint_bit_for_bit(impl):
    """⟨dO, A(Q, K, U)⟩ = ⟨dV, U⟩ for any U, at every length, where all sums are exact: the output is linear in the values."""
    for seed, (n, m) in enumerate(lengths()):
        dO, Q, K, V, seen = whole_call(seed, n, m, 4, 2, 1).args
        U = np.random.default_rng(seed).integers(-1, 2, V.shape).astype(np.float64)

        forward = (dO * impl.attention(Q, K, U, seen)).sum(axis=(2, 3))
        backward = (impl.attention_backward(dO, Q, K, V, seen)["dV"] * U).sum(axis=(2, 3))

        assert_identical(backward, forward, f"⟨dV, U⟩ of {n} queries and {m} keys")


@claim("B4", needs=("attention", "attention_backward"))
@given(backward_calls(), SEEDS)
def test_forward_and_backward_are_adjoint(impl, call, seed):
    """⟨dO, A(Q, K, U)⟩ = ⟨dV, U⟩ to rounding, for scores of every pattern: both use the same weights."""
    dO, Q, K, V, mask = call.args
    U = dyadic(2 + seed, V.shape, 2.0)

    forward = (dO * impl.attention(Q, K, U, mask)).sum(axis=(2, 3))
    backward = (impl.attention_backward(dO, Q, K, V, mask)["dV"] * U).sum(axis=(2, 3))

    size = size_of_products(Call((dO, Q, K, U, mask), {})).sum(axis=(2, 3))
    rounding = _bound_of_scores(impl, Q, K) * size + 6 * sum_bound(Q.shape[2] + K.shape[2] + 8, impl, 1.0) * size
    assert_at_most(float((np.abs(forward - backward) - rounding).max()), 0.0, "|⟨dO, A(U)⟩ − ⟨dV, U⟩| − rounding")


@claim("B4", needs="attention_backward")
@given(backward_calls())
def test_queries_and_keys_have_the_same_share_in_their_scores(impl, call):
    """A score is bilinear in its query and its key: ⟨dQ, Q⟩ = ⟨dK, K⟩ in every head, both being ⟨dS, S⟩."""
    _, Q, K, _, _ = call.args

    got = impl.attention_backward(*call.args)

    of_queries, of_keys = (got["dQ"] * Q).sum(axis=(2, 3)), (got["dK"] * K).sum(axis=(2, 3))
    size = (size_of_products(call) * np.abs(Q)).sum(axis=2) @ np.ones(Q.shape[-1]) * np.abs(K).max(initial=0.0)
    terms = Q.shape[2] + K.shape[2] + sum(call.args[0].shape[-1:]) + Q.shape[-1] + 8
    rounding = 8 * sum_bound(terms, impl, float(size.max(initial=0.0))) / np.sqrt(Q.shape[-1])
    sizes = np.abs(Q).sum(axis=(2, 3)) + np.abs(K).sum(axis=(2, 3))
    rounding += sizes.max(initial=0.0) * FORMATS[impl.dtype].smallest / 2  # of gradients that are stored as subnormals
    assert_at_most(np.abs(of_queries - of_keys).max(initial=0.0), rounding, "|⟨dQ, Q⟩ − ⟨dK, K⟩|")


def _bound_of_scores(impl: Any, Q: np.ndarray, K: np.ndarray) -> float:
    """How far the weights of two computations may be apart, as a share of them: by the rounding of their scores."""
    size = float(np.abs(Q).sum(axis=-1).max(initial=0.0) * np.abs(K).max(initial=0.0)) / np.sqrt(Q.shape[-1])
    return float(np.expm1(min(4 * sum_bound(Q.shape[-1] + 4, impl, size), 8.0)))


# ---- B5: LayerNorm ----


@st.composite
def norm_calls(draw: st.DrawFn) -> Call:
    """dY, rows that a norm finds hard, a gain and an eps."""
    X = draw(rows_for_a_norm(kinds=("plain", "huge", "tiny", "constant", "eps")))
    dY = dyadic(draw(st.integers(2, 2**16)), X.shape, 2.0)
    return Call((dY, X), {"gain": draw(gains(X.shape[-1])), "eps": draw(st.sampled_from((1e-5, 1e-3)))})


@claim("B5", needs="layer_norm_backward")
@given(norm_calls())
def test_layer_norm_backward_agrees_with_the_oracle(impl, call):
    """dX, dgain and dbias differ from the oracle's by rounding alone, on rows of every size, constant ones among them."""
    assert_rounding_only(
        impl, "layer_norm_backward", impl.layer_norm_backward(*call.args, **call.kwargs), *call.args, **call.kwargs
    )


@claim("B5", needs="layer_norm_backward")
@given(norm_calls())
def test_the_gradient_of_a_norms_input_is_centred_and_orthogonal(impl, call):
    """Neither a constant added to a row nor a factor of it changes the result: dX sums to 0, and misses x̂ by eps' share alone."""
    (dY, X), gain, eps = call.args, call.kwargs["gain"], call.kwargs["eps"]
    d = X.shape[-1]

    dX = impl.layer_norm_backward(*call.args, **call.kwargs)["dX"]

    variance = X.var(axis=-1, keepdims=True)
    spread = np.sqrt(variance + eps)
    normalised = (X - X.mean(axis=-1, keepdims=True)) / spread
    d_normalised = dY * gain
    along = (d_normalised * normalised).sum(axis=-1) * (eps / (variance + eps) / spread)[..., 0]
    parts = np.abs(d_normalised) + np.abs(d_normalised).mean(axis=-1, keepdims=True)
    parts = parts + np.abs(normalised) * (np.abs(d_normalised * normalised)).mean(axis=-1, keepdims=True)
    unsure = 1 + np.abs(X).max(axis=-1, keepdims=True) / spread  # a large row has lost digits of x̂ before
    size = float((parts * unsure**2 / spread).sum(axis=-1).max(initial=0.0))
    rounding = 6 * sum_bound(2 * d + 8, impl, size)
    assert_at_most(np.abs(dX.sum(axis=-1)).max(initial=0.0), rounding, "|Σ_j dX_ij|")
    worst = np.abs((dX * normalised).sum(axis=-1) - along).max(initial=0.0)
    assert_at_most(worst, rounding * max(1.0, float(np.abs(normalised).max(initial=0.0))), "|⟨dX, x̂⟩ − eps' share|")


@claim("B5", needs="layer_norm_backward")
def test_gain_and_bias_learn_from_every_row(impl):
    """1 to 1040 rows, as tokens and as sequences: of a gradient of ones the bias gets the number of rows, bit for bit.

    And the gain gets what the oracle adds up.
    """
    for rows in ROWS:
        for shape in ((rows, 1, 3), (1, rows, 3)):
            X, dY = dyadic(rows, shape, 2.0), np.ones(shape)
            got = impl.layer_norm_backward(dY, X, gain=np.ones(3), eps=1e-3)
            assert_identical(got["dbias"], np.full(3, float(rows)), f"dbias of {shape[0]} × {shape[1]} tokens")
    X, dY = dyadic(3, (5, 26, 3), 2.0), dyadic(4, (5, 26, 3))
    call = {"gain": np.ones(3), "eps": 1e-3}
    assert_rounding_only(impl, "layer_norm_backward", impl.layer_norm_backward(dY, X, **call), dY, X, **call)


# ---- B6: feed-forward ----


@claim("B6", needs="feed_forward_backward")
@given(feed_forward_backward_calls())
def test_feed_forward_backward_agrees_with_the_oracle(impl, call):
    """dX and the gradients of both maps differ from the oracle's by rounding alone, for each activation."""
    got = impl.feed_forward_backward(*call.args, **call.kwargs)

    assert_rounding_only(impl, "feed_forward_backward", got, *call.args, **call.kwargs)


@claim("B6", needs="feed_forward_backward")
@given(feed_forward_backward_calls(), SEEDS)
def test_a_dead_unit_learns_nothing(impl, call, seed):
    """A hidden unit that is below 0 in every row gets gradients of exactly 0, in all three places."""
    dead = np.random.default_rng(seed).random(call.kwargs["b_1"].shape) < 0.5
    weights = call.kwargs | {"activation": "relu", "b_1": np.where(dead, -256.0, call.kwargs["b_1"])}

    got = impl.feed_forward_backward(*call.args, **weights)

    for name, gradient in (("dW_1", got["dW_1"].T), ("db_1", got["db_1"]), ("dW_2", got["dW_2"])):
        assert_identical(gradient[dead], np.zeros_like(gradient[dead]), f"{name} of dead units")


@claim("B6", needs="feed_forward_backward")
def test_both_maps_learn_from_every_row(impl):
    """1 to 1040 rows, as tokens and as sequences, with whole numbers: every gradient is an exact sum, bit for bit."""
    weights = {"W_1": np.eye(2), "b_1": np.ones(2), "W_2": np.array([[1.0, 0.0], [-1.0, 1.0]])}
    for rows in ROWS:
        for shape in ((rows, 1, 2), (1, rows, 2)):
            X = np.zeros(shape)
            X[-1, -1] = 1.0  # the last row is another
            dY = np.where(np.arange(rows).reshape(*shape[:2], 1) % 2 == 0, 1.0, -1.0) * np.array([1.0, 0.5])
            dY[-1, -1] = 2.0
            got, exact = (ask(dY, X, **weights) for ask in (impl.feed_forward_backward, _exact_feed_forward_backward))
            for name, gradient in exact.items():
                assert_identical(got[name], gradient, f"{name} of {shape[0]} × {shape[1]} tokens")


def _exact_feed_forward_backward(dY: np.ndarray, X: np.ndarray, **weights: np.ndarray) -> dict[str, np.ndarray]:
    return oracle("feed_forward_backward", dY, X, **weights)
