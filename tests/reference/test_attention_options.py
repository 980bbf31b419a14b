"""The oracle's attention with options: each formula a second time in plain loops, and the same as the article's without any."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most
from properties.error_budget.budgets import sum_bound
from properties.implementations.oracle import oracle
from properties.implementations.shapes import shapes_unchecked
from properties.inputs.attention_options import option_calls
from properties.steps import OPTIONS
from reference.attention import attention
from reference.attention_options import attention_with_options, key_head
from reference.trace import Trace

EVERY = frozenset(OPTIONS["attention"])


def attention_again(Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None, offset: int, options: dict) -> np.ndarray:
    """All heads of all rows, one query at a time: no maximum is subtracted, and a sink is one more key whose value is 0."""
    b, h, n, d_k = Q.shape
    repeated = np.repeat(np.arange(K.shape[1]), h // K.shape[1])
    out = np.zeros((b, h, n, V.shape[-1]))
    for r, head, i in product(range(b), range(h), range(n)):
        keys, values = K[r, repeated[head]], V[r, repeated[head]]
        terms = []
        for j, key in enumerate(keys):
            s = math.fsum(Q[r, head, i] * key) * (d_k**-0.5 if options.get("scale") is None else options["scale"])
            if c := options.get("softcap"):
                s = c * (1 - 2 / (math.exp(2 * s / c) + 1))
            if (bias := options.get("bias")) is not None:
                s += np.broadcast_to(bias, (b, h, n, len(keys)))[r, head, i, j]
            if (slopes := options.get("slopes")) is not None:
                s -= slopes[head] * abs(i + offset - j)
            left, right = options.get("window") or (None, None)
            seen = mask is None or np.broadcast_to(mask, (b, h, n, len(keys)))[r, head, i, j]
            seen &= not (options.get("causal") and j > i + offset)
            seen &= left is None or j >= i + offset - left
            seen &= right is None or j <= i + offset + right
            terms.append((math.exp(s) if seen else 0.0, values[j]))
        total = math.fsum(weight for weight, _ in terms)
        if (sinks := options.get("sinks")) is not None:
            total += math.exp(sinks[head])
        if (kept := options.get("dropout_mask")) is not None:
            terms = [(w / (1 - options["dropout_p"]) if kept[r, head, i, j] else 0.0, v) for j, (w, v) in enumerate(terms)]
        if total:
            out[r, head, i] = [math.fsum(weight * value[c] for weight, value in terms) / total for c in range(V.shape[-1])]
    return out


@given(option_calls(EVERY) | option_calls(EVERY, on=("dropout_mask",)), st.booleans())
def test_every_option_in_plain_loops(call, at_the_end):
    """Any of them together, with a mask and without, in both alignments."""
    Q, K, V, mask = call.args
    offset = K.shape[2] - Q.shape[2] if at_the_end else 0

    got = oracle("attention", *call.args, **call.kwargs, offset=offset)

    again = attention_again(Q, K, V, mask, offset, call.kwargs)
    largest = 64 * max(1.0, float(np.abs(V).max(initial=0.0)))  # an error of a score is one of its weight, and scores are below 64
    assert_at_most(float(np.abs(got - again).max(initial=0.0)), sum_bound(K.shape[2], "float64", largest), "attention with options")


def test_no_option_is_the_articles_attention():
    """Bit for bit, every option being given as the value that switches it off."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal((n, d)) for n, d in ((3, 4), (5, 4), (5, 2)))
    off = {"causal": False, "scale": None, "bias": None, "window": (None, None), "softcap": None, "sink": None, "slope": None}
    off |= {"dropout_mask": None, "dropout_p": 0.5}

    for mask in (None, rng.random((3, 5)) < 0.5):
        assert np.array_equal(attention(Q, K, V, mask), attention_with_options(Q, K, V, mask, **off))


def test_every_matrix_is_shown_under_its_name():
    """In the order in which they are computed."""
    rows = np.ones((2, 2))

    with Trace() as trace:
        attention_with_options(rows, rows, rows, bias=rows, softcap=1.0, sink=0.5, slope=0.25, dropout_mask=rows > 0)

    capped = ["products", "scores", "capped_scores", "biased_scores", "penalties", "sloped_scores"]
    assert list(trace) == [*capped, "masked_scores", "weights", "kept_weights", "context"]


@pytest.mark.parametrize(("h", "g"), [(4, 3), (2, 4), (2, 0)])
def test_key_heads_that_do_not_divide_the_query_heads_are_refused(h, g):
    """In one line that says what was expected."""
    with pytest.raises(ValueError, match=f"a number of key heads that divides the {h} query heads, got {g}"):
        key_head(0, h, g)


def test_neighbouring_heads_share_a_key_head():
    """Six heads and two key heads: the first three read the first."""
    assert [key_head(i, 6, 2) for i in range(6)] == [0, 0, 0, 1, 1, 1]


def test_a_row_that_sees_nothing_gets_zeros():
    """Whether mask, order, window or bias hides all keys, and with a sink as without."""
    one, hidden = np.ones((1, 1, 2, 1)), np.full((1, 2), -np.inf)
    ways = {"mask": np.zeros((2, 2), dtype=bool)}, {"bias": hidden}, {"window": (0, 0), "offset": 2}, {"causal": True, "offset": -2}

    for way in ways:
        for sink in (None, np.zeros(1)):
            with shapes_unchecked():
                assert not oracle(
                    "attention", one, one, one, way.get("mask"), **{k: v for k, v in way.items() if k != "mask"}, sinks=sink
                ).any()
