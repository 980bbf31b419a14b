"""Feed-forward: two linear maps with a bend between them, where a token's features meet, and tokens do not."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.oracle import oracle
from properties.inputs.parameters import ACTIVATIONS, SEEDS, Call, dyadic, feed_forward_calls, huge, sizes


@st.composite
def exact_calls(draw: st.DrawFn) -> Call:
    """Small integers and ReLU: every partial sum is exact in every dtype. Weights are at least 1, hidden units may be dead."""
    b, n, _, _, _, d_ff = draw(sizes())
    d_model = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(SEEDS))

    def whole(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.integers(low, high + 1, shape).astype(np.float64)

    weights = {"W_1": whole(1, 2, d_model, d_ff), "b_1": whole(-9, 3, d_ff), "W_2": whole(1, 2, d_ff, d_model)}
    return Call((whole(-1, 1, b, n, d_model),), {**weights, "b_2": whole(-3, 3, d_model), "activation": "relu"})


@claim("F1", needs="feed_forward")
@given(feed_forward_calls())
def test_feed_forward_agrees_with_the_oracle(impl, call):
    """Both maps, both biases and each activation differ from the oracle by rounding alone."""
    got = impl.feed_forward(*call.args, **call.kwargs)

    assert_rounding_only(impl, "feed_forward", got, *call.args, **call.kwargs)


@claim("F1", needs="feed_forward")
@given(exact_calls())
def test_small_integers_come_out_exactly(impl, call):
    """ReLU of integers needs no rounding: equality is bit for bit at any dtype and in any order of summation."""
    got = impl.feed_forward(*call.args, **call.kwargs)

    assert_identical(got, oracle("feed_forward", *call.args, **call.kwargs), "feed_forward on small integers")


@claim("F1", needs="feed_forward")
@given(exact_calls(), st.integers(0, 3))
def test_every_feature_influences_every_other_through_a_live_unit(impl, call, feature):
    """One more of any feature moves every feature of that token where a hidden unit is active, and none where all are dead."""
    (X,) = call.args
    more = X.copy()
    more[..., feature % X.shape[-1]] += 1.0
    alive = (more @ call.kwargs["W_1"] + call.kwargs["b_1"] > 0).any(axis=-1)  # active at least after the step

    change = impl.feed_forward(more, **call.kwargs) - impl.feed_forward(X, **call.kwargs)

    everywhere = np.broadcast_to(alive[..., None], change.shape)
    assert_identical((change > 0).astype(np.float64), everywhere.astype(np.float64), "features that moved")
    expected = oracle("feed_forward", more, **call.kwargs) - oracle("feed_forward", X, **call.kwargs)
    assert_identical(change, expected, "how far the features moved")


@claim("F1", needs="feed_forward")
@given(exact_calls())
def test_dead_units_say_nothing(impl, call):
    """Where every hidden unit is dead the output is b_2, whatever the token is: the Jacobian is 0."""
    dead = call.but(b_1=np.full_like(call.kwargs["b_1"], -128.0))

    got = impl.feed_forward(*dead.args, **dead.kwargs)

    assert_identical(got, np.broadcast_to(call.kwargs["b_2"], got.shape), "feed_forward of dead units")


@claim("F1", needs="feed_forward")
@given(st.sampled_from(ACTIVATIONS), SEEDS, st.integers(0, 5))
def test_activation_agrees_with_the_oracle(impl, activation, seed, exponent):
    """With identities for both maps the step is the activation alone: judged from the tails to the bend, on both sides."""
    eye, nothing = np.eye(8), np.zeros(8)
    X = dyadic(2 + seed, (1, 4, 8), 2.0 ** (exponent - 2))
    identity = {"W_1": eye, "b_1": nothing, "W_2": eye, "b_2": nothing, "activation": activation}

    assert_rounding_only(impl, "feed_forward", impl.feed_forward(X, **identity), X, **identity)


@claim("F2", needs="feed_forward")
@given(feed_forward_calls(), st.integers(0, 4), SEEDS)
def test_feed_forward_is_position_wise(impl, call, i, seed):
    """Changing a token, however much, leaves every other token bit-identical, and moves itself as the oracle predicts."""
    (X,) = call.args
    i %= X.shape[1]
    others = np.delete(np.arange(X.shape[1]), i)
    junk, changed = X.copy(), X.copy()
    junk[:, i] = dyadic(2 + seed, X[:, i].shape, huge(impl.dtype))
    changed[:, i] = dyadic(3 + seed, X[:, i].shape, 2.0)

    before = impl.feed_forward(X, **call.kwargs)

    with_junk = impl.feed_forward(junk, **call.kwargs)
    assert_identical(with_junk[:, others], before[:, others], f"tokens other than {i}")
    after = impl.feed_forward(changed, **call.kwargs)
    assert_identical(after[:, others], before[:, others], f"tokens other than {i}")
    assert_rounding_only(impl, "feed_forward", after, changed, **call.kwargs)


@claim("F2", needs="feed_forward")
@given(feed_forward_calls(), SEEDS)
def test_permuted_tokens_give_permuted_rows(impl, call, seed):
    """Reordering the tokens reorders the result: the same maps serve every place."""
    (X,) = call.args
    order = np.random.default_rng(seed).permutation(X.shape[1])

    got = impl.feed_forward(X[:, order], **call.kwargs)

    assert_rounding_only(impl, "feed_forward", got[:, np.argsort(order)], X, **call.kwargs)
