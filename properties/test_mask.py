"""Mask: what a token may attend to, set to −∞ before softmax."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.cache_machine import seeded_model
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.conventions import causal
from properties.inputs.attention import attention_calls, farthest, full, mask_shapes
from properties.inputs.parameters import SEEDS, Call, dyadic, multi_head_calls

LENGTHS = st.integers(1, 9) | st.sampled_from((31, 33, 64, 65, 129))


def seen(impl, Q: np.ndarray, K: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The weights (b, h, n, m) that an attention gives its keys: its answer where the values are ones on the diagonal."""
    m = K.shape[-2]
    return impl.attention(Q, K, np.broadcast_to(np.eye(m), (*K.shape[:2], m, m)), mask)


@claim("M1", needs="mask")
@given(LENGTHS, LENGTHS)
def test_the_mask_is_lower_triangular(impl, n, m):
    """A token sees itself and what came before; for n ≠ m the sequences begin together or end together, as declared."""
    assert_identical(impl.mask(n, m), causal(n, m, impl.conventions), f"mask of {n}×{m}")


@claim("M1", needs="mask")
@given(LENGTHS)
def test_token_i_attends_to_tokens_up_to_i(impl, n):
    """In a square mask row i holds i + 1 tokens, the first i + 1 of them."""
    mask = impl.mask(n, n)

    assert_identical(mask.sum(axis=1), np.arange(1, n + 1), "tokens in sight")
    assert_identical(np.diag(mask), np.ones(n, dtype=bool), "a token and itself")


@claim("M1", needs=("mask", "attention"))
@given(attention_calls(masked=False), st.integers(1, 9))
def test_causal_weights_of_future_tokens_are_exactly_zero(impl, call, n):
    """Under its own causal mask an attention gives later tokens a weight of 0, with no bit left over."""
    Q, *_ = call.args
    X = np.resize(Q, (*Q.shape[:2], n, Q.shape[-1]))
    weights = seen(impl, X, X, impl.mask(n, n))

    assert_identical(np.triu(weights, k=1), np.zeros_like(weights), "weights of later tokens")
    assert_rounding_only(impl, "attention", weights, X, X, np.broadcast_to(np.eye(n), weights.shape), np.tri(n, dtype=bool))


@claim("M1", needs="attention")
@given(attention_calls(masked=True))
def test_masked_keys_have_a_weight_of_exactly_zero(impl, call):
    """The same for a mask of any form: what it hides gets no weight at all."""
    Q, K, _, mask = call.args
    weights = seen(impl, Q, K, mask)

    hidden = ~full(mask, *weights.shape)
    assert_identical(weights[hidden], np.zeros(hidden.sum()), "weights of hidden keys")


@claim("M2", needs="attention")
@given(attention_calls(masked=True))
def test_masked_weights_sum_to_one(impl, call):
    """The mask comes before softmax: where every value is 1 the average is 1, however many keys are hidden."""
    Q, K, V, mask = call.args
    b, h, m, _ = V.shape

    got = impl.attention(Q, K, np.ones((b, h, m, 1)), mask)

    assert_at_most(np.abs(got - 1).max(initial=0.0), sum_bound(m + 2, impl, 1.0), "|Σ weights − 1|")


@claim("M2", needs="attention")
@given(attention_calls(masked=False), SEEDS)
def test_masking_a_key_equals_removing_it(impl, call, seed):
    """An attention with some keys hidden from everybody is judged as the attention without those keys."""
    Q, K, V, _ = call.args
    m = K.shape[-2]
    attends = np.random.default_rng(seed).random(m) < 0.5
    attends[seed % m] = True

    got = impl.attention(Q, K, V, attends[None])

    assert_rounding_only(impl, "attention", got, Q, K[:, :, attends], V[:, :, attends])


@claim("M2", needs="attention")
@given(attention_calls(masked=True, fully_masked=True))
def test_a_fully_masked_row_follows_the_declared_convention(impl, call):
    """Zeros, NaN or the mean of the values, by convention; the other rows are judged as ever."""
    got = impl.attention(*call.args)

    assert_rounding_only(impl, "attention", got, *call.args)


USUAL = Call(
    (dyadic(5, (2, 3, 4), 2.0), dyadic(5, (2, 3, 4), 2.0)),
    {"h": 2, **seeded_model(11, 4, 6, source_vocab=2, vocab=2, layers=1)["encoder"][0]["self_attention"]},
)
"""An even number of heads, with all biases: what has code of its own in some libraries."""


@claim("M2", needs="multi_head")
@example(USUAL, 1)
@given(multi_head_calls(masked=False), SEEDS)
def test_a_fully_masked_row_of_multi_head_follows_the_declared_convention(impl, call, seed):
    """Looking at its own sequence, such a token hears nothing, NaN or the mean, by convention, and no other token notices."""
    X, call = call.args[0], call.but(W_Q=np.zeros_like(call.kwargs["W_Q"]), b_Q=None)  # all scores are 0
    b, n, d_model = X.shape
    fully_masked = np.random.default_rng(seed).random((b, 1, n, 1)) < 0.5
    rows = fully_masked[:, 0, :, 0]

    got = impl.multi_head(X, X, np.broadcast_to(~fully_masked, (b, 1, n, n)), **call.kwargs)

    seeing = impl.multi_head(X, X, np.ones((b, 1, n, n), dtype=bool), **call.kwargs)
    assert_identical(got[~rows], seeing[~rows], "tokens that see everything")
    if impl.conventions.fully_masked_row == "mean":
        assert_rounding_only(impl, "multi_head", got, X, X, **call.kwargs)
        return
    nothing = np.zeros(d_model) if call.kwargs["b_O"] is None else call.kwargs["b_O"]
    declared = nothing if impl.conventions.fully_masked_row == "zeros" else np.full(d_model, np.nan)
    assert_identical(got[rows], np.broadcast_to(declared, got[rows].shape), "tokens that is fully masked")


@claim("M2", needs="attention")
@given(attention_calls(masked=False), st.integers(0, 7), SEEDS)
def test_broadcastable_mask_shapes_are_equivalent(impl, call, which, seed):
    """A mask with axes of 1 is judged as the same mask written out, and written out it is judged the same."""
    Q, K, V, _ = call.args
    b, h, n, m = (*Q.shape[:3], K.shape[-2])
    shapes = mask_shapes(b, h, n, m)
    small = np.random.default_rng(seed).random(shapes[which % len(shapes)]) < 0.6
    small[..., seed % m] = True

    for mask in (small, full(small, b, h, n, m).copy()):
        assert_rounding_only(impl, "attention", impl.attention(Q, K, V, mask), Q, K, V, mask)


@claim("M3", needs="attention")
@given(attention_calls(masked=True), st.integers(0, 200), SEEDS, st.sampled_from((1.0, -1.0)))
def test_masked_tokens_do_not_influence_multi_head(impl, call, i, seed, sign):
    """Whatever finite numbers stand in the keys and values hidden from query i, its row comes out bit-identical."""
    Q, K, V, mask = call.args
    b, h, n, m = (*Q.shape[:3], K.shape[-2])
    i %= n
    hidden = ~full(mask, b, h, n, m)[:, :, i, :, None]
    junk_K = np.where(hidden, sign * dyadic(2 + seed, K.shape, farthest(impl.dtype)), K)
    junk_V = np.where(hidden, dyadic(3 + seed, V.shape, farthest(impl.dtype)), V)

    before = impl.attention(Q, K, V, mask)

    assert_identical(
        impl.attention(Q, junk_K, junk_V, mask)[:, :, i], before[:, :, i], f"row {i} after keys hidden from it changed"
    )


@claim("M3", needs="attention")
@given(attention_calls(masked=True), st.integers(0, 200), SEEDS)
def test_attended_tokens_influence_multi_head_as_the_oracle_predicts(impl, call, j, seed):
    """Another key and value in place j: rows that see it follow the oracle, and rows it is hidden from stay bit-identical."""
    Q, K, V, mask = call.args
    b, h, n, m = (*Q.shape[:3], K.shape[-2])
    j %= m
    other_K, other_V = K.copy(), V.copy()
    other_K[:, :, j], other_V[:, :, j] = dyadic(2 + seed, K[:, :, j].shape, 2.0), dyadic(3 + seed, V[:, :, j].shape, 2.0)

    before, after = impl.attention(Q, K, V, mask), impl.attention(Q, other_K, other_V, mask)

    fully_masked_to_it = ~full(mask, b, h, n, m)[..., j]
    assert_identical(after[fully_masked_to_it], before[fully_masked_to_it], f"rows that key {j} is hidden from")
    assert_rounding_only(impl, "attention", after, Q, other_K, other_V, mask)
