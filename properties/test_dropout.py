"""Dropout of attention's weights, with a mask that is given: what is dropped weighs nothing, what is kept 1/(1 − p) times as much.

Masks that an implementation draws itself have no oracle. Asked for only where `dropout_mask` is offered.
"""

from itertools import product

import numpy as np
from hypothesis import given

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.inputs.attention import farthest, labels
from properties.inputs.attention_options import option_calls, within_reach
from properties.inputs.parameters import SEEDS
from properties.test_attention_options import agrees

DROPOUT = ("attention", "attention.dropout_mask")
KEYS = 4

test_attention_with_dropout_mask_agrees_with_the_oracle = agrees("X12", "dropout_mask")


@claim("X12", needs=DROPOUT)
@given(option_calls(on=("dropout_mask",)))
def test_dropout_of_nothing_is_none(impl, call):
    """With every weight kept and p = 0 it is judged as attention without dropout."""
    asked = within_reach(call, impl)
    others = {name: value for name, value in asked.kwargs.items() if not name.startswith("dropout")}
    every = np.ones_like(asked.kwargs["dropout_mask"])

    got = impl.attention(*asked.args, **others, dropout_mask=every, dropout_p=0.0)

    assert_rounding_only(impl, "attention", got, *asked.args, **others)


@claim("X12", needs=DROPOUT)
@given(option_calls(on=("dropout_mask",)), SEEDS)
def test_a_dropped_value_moves_no_bit(impl, call, seed):
    """The value of a key may be anything finite for the queries that have it dropped; of which all are dropped, they get zeros."""
    asked = within_reach(call, impl)
    Q, K, V, mask = asked.args
    key, kept = seed % K.shape[2], asked.kwargs["dropout_mask"].copy()
    kept[:, :, seed % Q.shape[2]] = False
    options = asked.kwargs | {"dropout_mask": kept}
    after = V.copy()
    after[:, :, key] = farthest(impl.dtype) / 4

    before, changed = (impl.attention(Q, K, values, mask, **options) for values in (V, after))

    dropped = ~kept[..., key]
    assert_identical(changed[dropped], before[dropped], f"queries that have key {key} dropped, whose value changed")
    empty = ~kept.any(axis=-1)
    assert_identical(before[empty], np.zeros_like(before[empty]), "queries that have all keys dropped")


@claim("X12", needs=DROPOUT)
def test_the_mean_over_all_dropout_masks_is_attention_without(impl):
    """Every mask of four keys once, each weighted by its probability: the expectation is what attention says without dropout."""
    masks = np.array([*product((False, True), repeat=KEYS)])
    count = len(masks)
    rng = np.random.default_rng(0)
    Q, K = (rng.integers(-2, 3, (1, 2, n, 2)) / 2 for n in (3, KEYS))
    V = labels(1, 2, KEYS, 3)
    every = np.broadcast_to(masks[:, None, None], (count, 2, 3, KEYS))
    plain = impl.attention(Q, K, V)

    for p in (0.5, 0.25):
        probability = p ** (~masks).sum(axis=1) * (1 - p) ** masks.sum(axis=1)
        repeated = (np.repeat(X, count, axis=0) for X in (Q, K, V))
        got = impl.attention(*repeated, dropout_mask=every.copy(), dropout_p=p)

        mean = (probability[:, None, None, None] * got).sum(axis=0, keepdims=True)
        rounding = 4 * sum_bound(KEYS + 8, impl, float(np.abs(V).max()) / (1 - p))
        assert_at_most(float(np.abs(mean - plain).max()), rounding, f"|mean over all masks − attention| at p = {p}")
