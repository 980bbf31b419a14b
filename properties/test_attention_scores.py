"""Options of attention that change scores: scale, bias, softcap, sinks, ALiBi slopes. `test_attention_options` has the others.

Inputs are sharp: few keys, scores and biases whose sums are representable in every dtype, caps far below the scores.
"""

from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.conventions import visible
from properties.inputs.attention import farthest, labels, mask_shapes
from properties.inputs.attention_options import option_calls, within_reach
from properties.inputs.parameters import SEEDS, Call

QUARTERS = 4  # scores and biases are whole multiples of 1/4 up to 4: their sums have few bits
D_K = 4  # its root is a power of two
NO_WEIGHT = -1024.0  # a score so far below the others that its exponential is 0 in every dtype


@st.composite
def plain_calls(draw: st.DrawFn, *, heads: int = 2) -> Call:
    """Attention of scores that are multiples of 1/4, without a mask; the values are labels."""
    rng = np.random.default_rng(draw(SEEDS))
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    Q, K = (rng.integers(-1, 2, (1, heads, length, D_K)) / 1.0 for length in (n, m))
    return Call((Q, K / 2, labels(1, heads, m, 2), None), {})


# Scale ----------------------------------------------------------------------------------------------------------------

SCALE = ("attention", "attention.scale")


@claim("X2", needs=SCALE)
@given(option_calls(on=("scale",)), st.integers(-3, 3))
def test_a_power_of_four_in_the_scale_is_one_in_the_queries(impl, call, exponent):
    """Bit for bit: neither a product nor the root of such a scale, by which some multiply queries and keys, is rounded."""
    asked = within_reach(call, impl)
    Q, K, V, mask = asked.args
    others = {name: value for name, value in asked.kwargs.items() if name != "scale"}

    got = impl.attention(Q, K, V, mask, scale=4.0**exponent, **others)

    assert_identical(got, impl.attention(4.0**exponent * Q, K, V, mask, scale=1.0, **others), f"attention with scale 4^{exponent}")


@claim("X2", needs=SCALE)
@given(plain_calls(), SEEDS)
def test_a_scale_of_zero_gives_the_mean(impl, call, seed):
    """Whatever the queries and keys are, each query is judged as one that scores 0 everywhere."""
    Q, K, V, _ = call.args

    got = impl.attention(Q, K, V, scale=0.0)

    assert_rounding_only(impl, "attention", got, np.zeros_like(Q), K, V, scale=(1 + seed % 7) / 8)


@claim("X2", needs=SCALE)
@given(plain_calls(), st.sampled_from((-1.0, -0.5, -0.375)))
def test_a_negative_scale_turns_the_order_round(impl, call, scale):
    """It is judged as a positive scale of queries that point the other way."""
    Q, K, V, _ = call.args

    got = impl.attention(Q, K, V, scale=scale)

    assert_rounding_only(impl, "attention", got, -Q, K, V, scale=-scale)


@claim("X2", needs=SCALE)
def test_hidden_keys_stay_hidden_at_every_scale(impl):
    """Scaled by 0 or less, under every way to hide keys that is offered: −∞ is put in after scaling, or it were NaN or +∞."""
    Q, K, V = labels(1, 1, 3, 4) / 16, labels(1, 1, 3, 4)[:, :, ::-1] / 16, labels(1, 1, 3, 4)
    seen = np.tril(np.ones((3, 3), dtype=bool))
    ways = {
        "mask": ((seen,), {}),
        "causal": ((), {"causal": True}),
        "window": ((), {"window": (1, 0)}),
        "bias": ((), {"bias": np.where(seen, 0.0, -np.inf)}),
    }
    for way, (mask, options) in ways.items():
        if way != "mask" and not impl.offers(f"attention.{way}"):
            continue
        for scale in (0.0, -0.5):
            got = impl.attention(Q, K, V, *mask, scale=scale, **options)
            assert_rounding_only(impl, "attention", got, Q, K, V, *mask, scale=scale, **options)


# Bias -----------------------------------------------------------------------------------------------------------------

BIAS = ("attention", "attention.bias")


@claim("X3", needs=BIAS)
@given(plain_calls(), SEEDS)
def test_a_constant_bias_changes_nothing(impl, call, seed):
    """Another constant for each query, added to all of its scores: judged as attention without a bias."""
    Q, K, V, _ = call.args
    constants = np.random.default_rng(seed).integers(-4 * QUARTERS, 4 * QUARTERS + 1, (*Q.shape[:3], 1)) / QUARTERS

    got = impl.attention(Q, K, V, bias=np.broadcast_to(constants, (*Q.shape[:3], K.shape[2])).copy())

    assert_rounding_only(impl, "attention", got, Q, K, V)


@claim("X3", needs=BIAS)
@given(plain_calls(), SEEDS)
def test_a_bias_of_minus_infinity_is_the_boolean_mask(impl, call, seed):
    """0 where the mask shows a key and −∞ where it hides one; fully masked rows follow the convention."""
    Q, K, V, _ = call.args
    seen = np.random.default_rng(seed).random((*Q.shape[:3], K.shape[2])) < 0.6

    got = impl.attention(Q, K, V, bias=np.where(seen, 0.0, -np.inf))

    assert_rounding_only(impl, "attention", got, Q, K, V, seen)


@claim("X3", needs=BIAS)
@given(plain_calls(), SEEDS)
def test_a_bias_and_a_mask_both_count(impl, call, seed):
    """Among the keys that the mask shows, the bias decides; what the bias says of hidden keys moves no bit."""
    Q, K, V, _ = call.args
    rng = np.random.default_rng(seed)
    seen = rng.random((1, 1, Q.shape[2], K.shape[2])) < 0.6
    bias = rng.integers(-2 * QUARTERS, 2 * QUARTERS + 1, (*Q.shape[:3], K.shape[2])) / QUARTERS

    got = impl.attention(Q, K, V, seen, bias=bias)

    assert_rounding_only(impl, "attention", got, Q, K, V, seen, bias=bias)
    assert_identical(impl.attention(Q, K, V, seen, bias=np.where(seen, bias, 3.0)), got, "after the bias of hidden keys changed")


@claim("X3", needs=BIAS)
@given(plain_calls(), SEEDS)
def test_a_bias_is_read_in_every_broadcastable_shape(impl, call, seed):
    """A bias that is the same for all queries, heads or sequences may be given once."""
    Q, K, V, _ = call.args
    shapes = mask_shapes(1, Q.shape[1], Q.shape[2], K.shape[2])
    bias = np.random.default_rng(seed).integers(-2 * QUARTERS, 2 * QUARTERS + 1, shapes[seed % len(shapes)]) / QUARTERS

    got = impl.attention(Q, K, V, bias=bias)

    assert_rounding_only(impl, "attention", got, Q, K, V, bias=np.broadcast_to(bias, (*Q.shape[:3], K.shape[2])))


# Softcap --------------------------------------------------------------------------------------------------------------

LARGE_CAP = {"float64": 2.0**30, "float32": 2.0**14, "bfloat16": 2.0**10, "float16": 2.0**10}  # (s/c)² is below the roundoff
SOFTCAP = ("attention", "attention.softcap")


@claim("X6", needs=SOFTCAP)
@given(SEEDS, st.sampled_from((0.5, 1.0, 2.0)))
def test_no_score_is_above_the_cap(impl, seed, cap):
    """Scores of hundreds, and yet no key has less weight than one of −c among keys of c."""
    rng = np.random.default_rng(seed)
    m = 2 + seed % 5
    K = rng.choice((-256.0, 256.0), (1, 1, m, 1))

    got = impl.attention(np.ones((1, 1, 1, 1)), K, np.eye(m)[None, None], softcap=cap)

    least = np.exp(-2 * cap) / (np.exp(-2 * cap) + m - 1)
    assert_at_most(float(least - got.min()), sum_bound(m + 8, impl, 1.0), f"least weight under a cap of {cap}: {least:.4g} −")


@claim("X6", needs=SOFTCAP)
@given(plain_calls(), st.sampled_from((0.5, 1.0, 2.0)))
def test_a_cap_keeps_the_sign_of_scores(impl, call, cap):
    """c·tanh is odd: queries and keys that both point the other way score the same."""
    Q, K, V, _ = call.args

    got = impl.attention(-Q, -K, V, softcap=cap)

    assert_rounding_only(impl, "attention", got, Q, K, V, softcap=cap)


@claim("X6", needs=SOFTCAP)
@given(plain_calls())
def test_a_large_cap_is_none(impl, call):
    """A cap that changes the scores by less than a rounding: judged as the cap of twice that."""
    Q, K, V, _ = call.args
    large = LARGE_CAP[impl.dtype]

    got = impl.attention(Q, K, V, softcap=large)

    assert_rounding_only(impl, "attention", got, Q, K, V, softcap=2 * large)


@claim("X6", needs=SOFTCAP)
@given(plain_calls(), SEEDS, st.sampled_from((0.5, 2.0)))
def test_a_hidden_key_has_no_weight_under_a_cap(impl, call, seed, cap):
    """The cap comes before the mask: squeezed afterwards, −∞ would be −c, and a hidden key would be heard."""
    Q, K, V, _ = call.args
    seen = np.random.default_rng(seed).random((1, 1, Q.shape[2], K.shape[2])) < 0.6
    ways = {"causal": {"causal": True}, "window": {"window": (1, 0)}}
    offered = [({}, seen), *((options, None) for way, options in ways.items() if impl.offers(f"attention.{way}"))]
    for options, mask in offered:
        hidden = ~visible((Q, K, V, mask), options, impl.conventions).any(axis=(0, 1, 2))
        after = np.where(hidden[:, None], farthest(impl.dtype) / 4, V)
        with suppress(UnsatisfiedAssumption):  # not taken together, and counted
            got = impl.attention(Q, K, V, mask, softcap=cap, **options)

            assert_rounding_only(impl, "attention", got, Q, K, V, mask, softcap=cap, **options)
            if impl.conventions.fully_masked_row != "mean":
                assert_identical(
                    impl.attention(Q, K, after, mask, softcap=cap, **options), got, "after values hidden from all changed"
                )


# Sinks ----------------------------------------------------------------------------------------------------------------

SINKS = ("attention", "attention.sinks")


@claim("X7", needs=SINKS)
@given(SEEDS, st.integers(1, 4), st.integers(1, 20))
def test_a_sink_takes_its_share_of_the_weight(impl, seed, h, m):
    """Where all scores are 0 and all values 1, a head with sink a answers m/(m + eᵃ): the sink counts once."""
    sinks = np.random.default_rng(seed).integers(-24, 25, h) / 8
    exact = (m / (m + np.exp(sinks)))[None, :, None, None]

    got = impl.attention(np.zeros((1, h, 2, 3)), np.ones((1, h, m, 3)), np.ones((1, h, m, 2)), sinks=sinks)

    assert_at_most(float(np.abs(got - exact).max()), sum_bound(m + 8, impl, 1.0), "|attention − m/(m + eᵃ)|")


@claim("X7", needs=SINKS)
@given(plain_calls(), SEEDS)
def test_a_sink_equals_a_key_whose_value_is_zero(impl, call, seed):
    """Judged as attention to one more key, which scores the sink for every query and has nothing to say."""
    Q, K, V, _ = call.args
    sinks = np.random.default_rng(seed).integers(-4 * QUARTERS, 4 * QUARTERS + 1, Q.shape[1]) / QUARTERS

    got = impl.attention(Q, K, V, sinks=sinks)

    b, h, n, d_k = Q.shape
    one, root = np.ones((b, h, n, 1)), np.sqrt(D_K)
    sink_key = np.concatenate([np.zeros((b, h, 1, d_k)), root * sinks[:, None, None] * np.ones((b, 1, 1, 1))], axis=-1)
    keys = np.concatenate([np.pad(K, ((0, 0), (0, 0), (0, 0), (0, 1))), sink_key], axis=2)
    values = np.pad(V, ((0, 0), (0, 0), (0, 1), (0, 0)))
    assert_rounding_only(impl, "attention", got, np.concatenate([Q, one], axis=-1), keys, values, scale=1 / root)


@claim("X7", needs=SINKS)
@given(option_calls(on=("sinks",)))
def test_a_sink_without_weight_is_none(impl, call):
    """A sink far below all scores is judged as no sink; where no key is seen, it still has all the weight, and the row is 0."""
    asked = within_reach(call, impl)
    others = {name: value for name, value in asked.kwargs.items() if name != "sinks"}
    sees = visible(asked.args, others, impl.conventions).any(axis=-1, keepdims=True)

    got = impl.attention(*asked.args, sinks=np.full(asked.args[0].shape[1], NO_WEIGHT), **others)

    assert_identical(np.where(sees, 0.0, got), np.zeros_like(got), "rows that see nothing but the sink")
    if sees.all():
        assert_rounding_only(impl, "attention", got, *asked.args, **others)


# ALiBi ----------------------------------------------------------------------------------------------------------------

SLOPES = ("attention", "attention.slopes")


def slopes_of(h: int, seed: int) -> np.ndarray:
    """Another power of two for each head, in any order."""
    return 2.0 ** (1 - np.random.default_rng(seed).permutation(h))


@claim("X8", needs=SLOPES)
@given(plain_calls(heads=3), SEEDS)
def test_slopes_equal_the_explicit_bias(impl, call, seed):
    """Judged as the bias −slope·|i − j|, each head with its own slope."""
    Q, K, V, _ = call.args
    n, m = Q.shape[2], K.shape[2]
    slopes, offset = slopes_of(3, seed), m - n if impl.conventions.causal_alignment == "bottom_right" else 0

    got = impl.attention(Q, K, V, slopes=slopes)

    distances = np.abs(np.arange(n)[:, None] + offset - np.arange(m))
    assert_rounding_only(impl, "attention", got, Q, K, V, bias=-slopes[:, None, None] * distances)


@claim("X8", needs=SLOPES)
@given(plain_calls(heads=3), SEEDS, st.integers(1, 40))
def test_only_distances_count(impl, call, seed, before):
    """With tokens in front that nobody sees, of both sequences alike, all others get what they get without them."""
    Q, K, V, _ = call.args
    slopes = slopes_of(3, seed)
    n, m = Q.shape[2], K.shape[2]
    in_front = ((0, 0), (0, 0), (before, 0), (0, 0))
    seen = np.broadcast_to(np.arange(before + m) >= before, (before + n, before + m))

    got = impl.attention(np.pad(Q, in_front), np.pad(K, in_front), np.pad(V, in_front), seen, slopes=slopes)

    assert_rounding_only(impl, "attention", got[:, :, before:], Q, K, V, slopes=slopes)


@claim("X8", needs=SLOPES)
def test_nearer_keys_weigh_more(impl):
    """Under equal scores weights fall with distance, on both sides of the query, by the same factor for each step."""
    slopes, m = np.array([1.0, 0.5]), 6
    Q, K, V = np.zeros((1, 2, m, 1)), np.zeros((1, 2, m, 1)), np.broadcast_to(np.eye(m), (1, 2, m, m)).copy()

    got = impl.attention(Q, K, V, slopes=slopes)

    weights = np.exp(-slopes[:, None, None] * np.abs(np.arange(m)[:, None] - np.arange(m)))
    exact = (weights / weights.sum(axis=-1, keepdims=True))[None]
    assert_at_most(float(np.abs(got - exact).max()), sum_bound(2 * m + 8, impl, 1.0), "|weights − those of the distances|")
