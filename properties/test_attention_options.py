"""Options of attention, each by itself and together; and those that say who sees whom: causal, window, grouped heads.

All are asked for only where they are offered. What an option does to scores is in `test_attention_scores`.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.conventions import fully_masked, visible
from properties.implementations.impl import Impl
from properties.inputs.attention import farthest, labels
from properties.inputs.attention_options import composed, covering, offered_by, option_calls, within_reach
from properties.inputs.parameters import SEEDS, Call
from properties.verdicts import NotOffered, record

TRIES = 3  # calls of each row of the covering array


# Agreement ------------------------------------------------------------------------------------------------------------


def agrees(identifier: str, option: str) -> Callable[..., None]:
    """The property that attention with this option agrees with the oracle, whatever other options are on as well."""

    @given(option_calls(on=(option,)))
    def test(impl: Impl, call: Call) -> None:
        asked = within_reach(call, impl)

        got = impl.attention(*asked.args, **asked.kwargs)

        assert_rounding_only(impl, "attention", got, *asked.args, **asked.kwargs)

    test.__name__ = test.__qualname__ = f"test_attention_with_{option}_agrees_with_the_oracle"
    test.__doc__ = f"With {option}, alone or beside other options: the oracle's answer but for rounding."
    return claim(identifier, needs=("attention", f"attention.{option}"))(test)  # as @claim(…) would


test_attention_with_causal_agrees_with_the_oracle = agrees("X1", "causal")
test_attention_with_scale_agrees_with_the_oracle = agrees("X2", "scale")
test_attention_with_bias_agrees_with_the_oracle = agrees("X3", "bias")
test_attention_with_grouped_heads_agrees_with_the_oracle = agrees("X4", "grouped_heads")
test_attention_with_window_agrees_with_the_oracle = agrees("X5", "window")
test_attention_with_softcap_agrees_with_the_oracle = agrees("X6", "softcap")
test_attention_with_sinks_agrees_with_the_oracle = agrees("X7", "sinks")
test_attention_with_slopes_agrees_with_the_oracle = agrees("X8", "slopes")


@claim("X9", needs="attention")
def test_every_pair_of_options_agrees_with_the_oracle(impl):
    """Every two offered options, each on and off, with a mask and without, for n = m, n < m and n > m: none is left to chance."""
    try:
        offered = offered_by(impl)
    except NotOffered as few:
        record.refused(str(few))
        raise UnsatisfiedAssumption from None

    for place, row in enumerate(covering(offered)):
        for seed in range(TRIES * place, TRIES * (place + 1)):
            asked = within_reach(composed(row, seed), impl)
            with suppress(UnsatisfiedAssumption):  # it does not take these together, and that was counted
                got = impl.attention(*asked.args, **asked.kwargs)
                assert_rounding_only(impl, "attention", got, *asked.args, **asked.kwargs)


# Who sees whom --------------------------------------------------------------------------------------------------------

LENGTHS = ((1, 1), (3, 3), (2, 5), (5, 2), (4, 7), (17, 17), (16, 33))


def assert_sees(impl: Impl, n: int, m: int, **options: object) -> None:
    """Under equal scores and one-hot values each row is the set of keys that it sees, over their number."""
    args = np.zeros((1, 1, n, 1)), np.zeros((1, 1, m, 1)), np.eye(m)[None, None]
    mean = impl.conventions.fully_masked_row == "mean"
    sees = visible(args, options, impl.conventions) | (fully_masked(args, options, impl.conventions) & mean)
    shown = ", ".join(f"{name}={value}" for name, value in options.items())

    with suppress(UnsatisfiedAssumption):  # not taken for these lengths, and counted
        got = impl.attention(*args, **options)
        assert_identical(got > 0, sees, f"who sees whom with {shown}, n = {n}, m = {m}")
        assert_rounding_only(impl, "attention", got, *args, **options)


@claim("X1", needs=("attention", "attention.causal"))
def test_causal_shows_each_query_what_came_before(impl):
    """The set of keys that each query sees, read off its row, for n and m of any order and at the edges of blocks."""
    for n, m in LENGTHS:
        assert_sees(impl, n, m, causal=True)


@claim("X5", needs=("attention", "attention.window"))
def test_a_window_shows_each_query_the_keys_around_it(impl):
    """The same of windows: closed on both sides, open on one, of one key, of a block; beside `causal`, where that is offered."""
    windows = [(0, 0), (1, 0), (0, 2), (2, 1), (None, 1), (3, None), (15, 0), (16, 16)]
    also = ({}, {"causal": True}) if impl.offers("attention.causal") else ({},)
    for (n, m), window, others in product(LENGTHS, windows, also):
        assert_sees(impl, n, m, window=window, **others)


@claim("X1", needs=("attention", "attention.causal"))
@given(option_calls(on=("causal",), off=("window",)))
def test_causal_equals_the_explicit_mask(impl, call):
    """What is asked with `causal` is judged as what is asked with the mask written out; with a mask besides, as that of both."""
    asked = within_reach(call, impl)
    Q, K, V, _ = asked.args
    others = {name: value for name, value in asked.kwargs.items() if name != "causal"}
    only_hidden = {name: value for name, value in asked.kwargs.items() if name == "causal"}

    got = impl.attention(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, "attention", got, Q, K, V, visible(asked.args, only_hidden, impl.conventions), **others)


@claim("X5", needs=("attention", "attention.window"))
@given(option_calls(on=("window",)))
def test_a_window_equals_the_explicit_mask(impl, call):
    """As `causal`, and together with it: judged as the mask that hides what any of them hides."""
    asked = within_reach(call, impl)
    Q, K, V, _ = asked.args
    hiding = {name: value for name, value in asked.kwargs.items() if name in ("causal", "window")}
    others = {name: value for name, value in asked.kwargs.items() if name not in hiding}

    got = impl.attention(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, "attention", got, Q, K, V, visible(asked.args, hiding, impl.conventions), **others)


@claim("X1", needs=("attention", "attention.causal"))
@given(option_calls(on=("causal",), off=("mask", "bias")), SEEDS)
def test_causal_prefixes_stand_alone(impl, call, seed):
    """The first tokens of a sequence get what they get when the sequence ends with them."""
    asked = within_reach(call, impl)
    Q, K, V, _ = asked.args
    n, m = Q.shape[2], K.shape[2]
    first = 1 + seed % n
    keys = first + (m - n if impl.conventions.causal_alignment == "bottom_right" else min(m - first, 0))
    if keys < 1:
        first, keys = n, m

    got = impl.attention(Q, K, V, **asked.kwargs)

    before = Q[:, :, :first], K[:, :, :keys], V[:, :, :keys]
    assert_rounding_only(impl, "attention", got[:, :, :first], *before, **asked.kwargs)


def assert_hidden_keys_move_nothing(impl: Impl, call: Call, seed: int) -> None:
    """Keys and values are replaced, and what each query is told that does not see any of them stays the same, bit for bit."""
    asked = within_reach(call, impl)
    Q, K, V, mask = asked.args
    gone = np.random.default_rng(seed).permutation(K.shape[2])[: 1 + seed % K.shape[2]]
    K_after, V_after = K.copy(), V.copy()
    K_after[:, :, gone], V_after[:, :, gone] = 4.0, farthest(impl.dtype) / 4
    unmoved = ~visible(asked.args, asked.kwargs, impl.conventions)[..., gone].any(axis=-1)
    if impl.conventions.fully_masked_row == "mean":
        unmoved &= ~fully_masked(asked.args, asked.kwargs, impl.conventions)[..., 0]

    before, after = impl.attention(*asked.args, **asked.kwargs), impl.attention(Q, K_after, V_after, mask, **asked.kwargs)

    assert_identical(after[unmoved], before[unmoved], f"queries that do not see keys {gone.tolist()}, which changed")


@claim("X1", needs=("attention", "attention.causal"))
@given(option_calls(on=("causal",)), SEEDS)
def test_later_keys_move_no_bit(impl, call, seed):
    """What lies ahead may be anything finite."""
    assert_hidden_keys_move_nothing(impl, call, seed)


@claim("X5", needs=("attention", "attention.window"))
@given(option_calls(on=("window",)), SEEDS)
def test_keys_outside_of_the_window_move_no_bit(impl, call, seed):
    """What lies outside of the window may be anything finite."""
    assert_hidden_keys_move_nothing(impl, call, seed)


@claim("X5", needs=("attention", "attention.window"))
def test_a_window_of_one_key_copies_its_value(impl):
    """Window (0, 0): one key has all the weight, whatever it scores, and the value comes out bit for bit."""
    for n, m in ((1, 1), (3, 3), (2, 5), (17, 33)):
        Q, K, V = labels(2, 2, n, 3) / 32, labels(2, 2, m, 3) / 32, labels(2, 2, m, 2)
        own = slice(m - n, m) if impl.conventions.causal_alignment == "bottom_right" else slice(n)

        with suppress(UnsatisfiedAssumption):  # not taken for these lengths, and counted
            assert_identical(impl.attention(Q, K, V, window=(0, 0)), V[:, :, own], f"window (0, 0), n = {n}, m = {m}")


@claim("X5", needs=("attention", "attention.window"))
@given(option_calls(on=("window",)))
def test_a_window_wider_than_the_sequences_is_none(impl, call):
    """With as many tokens on each side as there are it hides nothing."""
    asked = within_reach(call, impl)
    wide = asked.args[0].shape[2] + asked.args[1].shape[2]
    others = {name: value for name, value in asked.kwargs.items() if name != "window"}

    got = impl.attention(*asked.args, window=(wide, wide), **others)

    assert_rounding_only(impl, "attention", got, *asked.args, **others)


# Grouped heads --------------------------------------------------------------------------------------------------------

GROUPED = ("attention", "attention.grouped_heads")


def repeated(X: np.ndarray, h: int) -> np.ndarray:
    """Each key head as often as it is read."""
    return np.repeat(X, h // X.shape[1], axis=1)


@claim("X4", needs=GROUPED)
@given(option_calls(on=("grouped_heads",)))
def test_grouped_heads_equal_repeated_heads(impl, call):
    """Key heads that several query heads share are judged as key heads of their own that are equal."""
    asked = within_reach(call, impl)
    Q, K, V, mask = asked.args

    got = impl.attention(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, "attention", got, Q, *(repeated(X, Q.shape[1]) for X in (K, V)), mask, **asked.kwargs)


@claim("X4", needs=GROUPED)
@given(option_calls(on=("grouped_heads",), off=("mask", "bias", "sinks", "slopes")), SEEDS)
def test_permuted_groups_permute_the_output(impl, call, seed):
    """Key heads, each together with the query heads that read it, in another order."""
    asked = within_reach(call, impl)
    Q, K, V, _ = asked.args
    h, g = Q.shape[1], K.shape[1]
    order = np.random.default_rng(seed).permutation(g)
    heads = (order[:, None] * (h // g) + np.arange(h // g)).ravel()

    got = impl.attention(Q[:, heads], K[:, order], V[:, order], **asked.kwargs)

    assert_rounding_only(impl, "attention", got[:, np.argsort(heads)], Q, K, V, **asked.kwargs)


@claim("X4", needs=GROUPED)
@given(st.sampled_from(((2, 1), (4, 2), (6, 2), (6, 3), (8, 2), (12, 4))), st.integers(1, 3), st.integers(1, 5), SEEDS)
def test_a_key_head_moves_its_own_query_heads_alone(impl, heads, n, m, seed):
    """One key head's values become 1, where all were 0: its query heads answer 1, and all others 0."""
    h, g = heads
    K = np.random.default_rng(seed).integers(-2, 3, (1, g, m, 2)) / 2
    told = np.arange(g) == seed % g
    V = np.broadcast_to(told[:, None, None], (1, g, m, 1)).astype(np.float64)

    got = impl.attention(np.ones((1, h, n, 2)), K, V)

    assert_identical(
        got > 0.5, np.broadcast_to(repeated(told[None], h)[..., None, None], got.shape), f"heads that read key head {seed % g}"
    )
    assert_identical(got[:, ~repeated(told[None], h)[0]], np.zeros((1, h - h // g, n, 1)), "heads that do not")
