"""Questions laid into the larger shapes that a domain has: the oracle says there what it says of the smaller question."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from properties.assertions import assert_rounding_only
from properties.implementations.conventions import OURS, posed
from properties.implementations.domain import drawn_in, read, sizes_of
from properties.implementations.impl import Impl
from properties.implementations.laid import laid
from properties.implementations.laid_rows import PADDING
from properties.implementations.oracle import oracle
from properties.implementations.registry import built_in
from properties.inputs.attention import labels
from properties.inputs.attention_options import composed
from properties.inputs.parameters import dyadic
from properties.verdicts import NotOffered

TUTORIAL = {"d_k": (16, 32, 64, 128, 256), "d_v": "d_k", "n": "multiple of 128", "m": "n", "mask": None}
"""The limits of a flash-attention tutorial's kernel."""


@pytest.mark.parametrize(
    "said", [TUTORIAL, {"n": "multiple of 32", "m": "multiple of 16", "mask": ("b h n m", "n m")}, {"b": (4,), "h": (8,)}]
)
@pytest.mark.parametrize("mask", [None, "some"])
def test_a_laid_question_has_the_answer_of_the_smaller_one(said, mask):
    """At every place tokens may lie, the oracle says of the larger question, there, what it says of the smaller."""
    domain, seen = read(said), 0
    for n, m, d_k, d_v in ((1, 1, 1, 1), (3, 3, 4, 2), (2, 5, 4, 3), (4, 130, 16, 1), (128, 7, 1, 1), (33, 33, 64, 5)):
        Q, K, V = dyadic(3, (2, 2, n, d_k), 2.0), dyadic(4, (2, 2, m, d_k), 2.0), labels(2, 2, m, d_v)
        masks = [] if mask is None else [np.random.default_rng(n).random((2, 2, n, m)) < 0.5]
        try:
            larger = laid(domain, "attention", (Q, K, V, *masks), {}, dtype="float64")
        except NotOffered:
            continue
        got = larger.taken(oracle("attention", *larger.args))
        assert_rounding_only(Impl(built_in("optimized")), "attention", got, Q, K, V, *masks)
        seen += larger.parts != ()
    assert seen > 0 or (mask is not None and said is TUTORIAL)


OPTIONS = (
    {"causal": True},
    {"window": (1, 0)},
    {"slopes": np.array([0.5, 0.25, 1.0, 2.0])},
    {"causal": True, "slopes": np.array([0.5, 0.25, 1.0, 2.0]), "sinks": np.array([-1.0, 0.0, 1.0, 2.0])},
    {"causal": True, "bias": np.linspace(-1, 1, 4).reshape(4, 1, 1)},
    {"softcap": 2.0, "bias": np.zeros((1, 1))},
)


@pytest.mark.parametrize(
    "said",
    [
        TUTORIAL,
        {"n": "multiple of 32", "m": "multiple of 16"},
        {"n": (1, 2, 3, 4, 5), "m": "multiple of 64"},
        {"h": (6, 8), "m": "multiple of 16", "n": "m"},
    ],
)
@pytest.mark.parametrize("alignment", ["top_left", "bottom_right"])
@pytest.mark.parametrize("g", [4, 2])
def test_queries_stand_among_the_keys_of_a_larger_question_where_they_stood(said, alignment, g):
    """With options that ask for it, n ≠ m and grouped heads: the oracle says there what it says of the smaller question."""
    domain, impl = read(said), Impl(built_in("optimized")).under(replace(OURS, causal_alignment=alignment))
    for options, (n, m) in product(OPTIONS, ((3, 3), (2, 5), (5, 2), (1, 4))):
        Q, K, V = dyadic(3, (1, 4, n, 4), 2.0), dyadic(4, (1, g, m, 4), 2.0), labels(1, g, m, 4)

        larger = laid(domain, "attention", (Q, K, V), options, dtype="float64", alignment=alignment)

        args, kwargs = posed("attention", larger.args, larger.kwargs, impl.conventions)
        got = larger.taken(oracle("attention", *args, **kwargs))
        assert larger.args[1].shape[2] > m
        assert_rounding_only(impl, "attention", got, Q, K, V, **options)


def test_capped_scores_are_asked_for_with_as_many_keys_as_are_taken():
    """Nothing hides another key below a cap; so there is none."""
    Q = np.ones((1, 1, 2, 4))
    with pytest.raises(NotOffered, match="capped scores cannot be low enough to hide the other keys"):
        laid(read(TUTORIAL), "attention", (Q, Q, Q), {"softcap": 1.0}, dtype="float32")

    row = {"softcap": True, "mask": True, "lengths": "n > m"}
    with drawn_in(read(TUTORIAL)):
        lengths = [(call.args[0].shape[2], call.args[1].shape[2]) for call in (composed(row, seed) for seed in range(20))]
    assert {m for _, m in lengths} == {128, 256}
    assert all(n <= m for n, m in lengths)


# ---- rows of other steps ----

LIMITS = {"b": (4, 8), "n": "multiple of 32", "m": "multiple of 16", "d_model": (64, 128), "d_ff": (96,), "vocab": (128,)}
X = dyadic(3, (2, 3, 4), 2.0)
WEIGHTS = {f"W_{name}": dyadic(5, (4, 4)) for name in "QKVO"} | {f"b_{name}": dyadic(6, (4,)) for name in "QKVO"}
FORWARD = {"W_1": dyadic(5, (4, 6)), "b_1": dyadic(6, (6,)), "W_2": dyadic(7, (6, 4)), "b_2": dyadic(8, (4,))}
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "softmax": ((dyadic(3, (2, 3, 5), 4.0),), {}),
    "layer_norm": ((X,), {"gain": dyadic(4, (4,)), "bias": dyadic(5, (4,))}),
    "residual_norm": ((X, X[::-1]), {"gain": dyadic(4, (4,)), "bias": dyadic(5, (4,))}),
    "feed_forward": ((X,), FORWARD | {"activation": "gelu"}),
    "output_projection": ((X,), {"W": dyadic(5, (4, 5)), "b": dyadic(6, (5,))}),
    "next_token": ((X,), {"W": dyadic(5, (4, 5))}),
    "embedding": ((np.array([[1, 2, 0], [4, 4, 3]]),), {"table": dyadic(5, (5, 4))}),
    "split_heads": ((X, 2), {}),
    "concat_heads": ((dyadic(3, (2, 2, 3, 4)),), {}),
    "multi_head": ((X, dyadic(4, (2, 16, 4)), dyadic(5, (2, 1, 3, 16)) > 0), {"h": 2, **WEIGHTS}),
    "log_sum_exp": ((dyadic(3, (2, 2, 3, 4)), dyadic(4, (2, 2, 16, 4)), dyadic(5, (3, 16)) > 0), {}),
}

CALLS |= {
    "softmax_backward": ((dyadic(4, (2, 3, 5)), *CALLS["softmax"][0]), {}),
    "layer_norm_backward": ((dyadic(4, X.shape), X), {"gain": dyadic(4, (4,))}),
    "feed_forward_backward": (
        (dyadic(4, X.shape), X),
        {name: FORWARD[name] for name in ("W_1", "b_1", "W_2")} | {"activation": "gelu"},
    ),
}


@pytest.mark.parametrize("step", CALLS)
def test_rows_of_a_laid_question_have_the_answer_of_the_smaller_one(step):
    """Rows among copies, scores among −∞, products among zeros: the oracle says there what it says of the smaller question."""
    domain = read({axis: sizes for axis, sizes in LIMITS.items() if axis in PADDING[step]})
    args, kwargs = CALLS[step]

    larger = laid(domain, step, args, kwargs, dtype="float64")

    got, expected = larger.taken(oracle(step, *larger.args, **larger.kwargs)), oracle(step, *args, **kwargs)
    assert not domain.why_not(step, sizes_of(step, larger.args, larger.kwargs))
    assert_equal(got, expected, 2**-46)


def assert_equal(got: Any, expected: Any, difference: float) -> None:
    """Arrays, or several by name, of the same shapes and nearly the same numbers."""
    several = expected if isinstance(expected, dict) else {"result": expected}
    got = got if isinstance(got, dict) else {"result": got}
    assert got.keys() == several.keys()
    for name, array in several.items():
        assert got[name].shape == array.shape, name
        assert np.abs(got[name] - array).max() <= difference, name


@pytest.mark.parametrize("of", [None, "Q", "K", "V"])
@pytest.mark.parametrize("mask", [None, "some"])
def test_a_laid_backward_has_the_gradients_of_the_smaller_question(of, mask):
    """At every place tokens may lie: others have no gradient, and no one learns from them."""
    said = {"d_k": (16, 32, 64), "n": "multiple of 32", "m": "multiple of 16", "h": (3,)}
    step, kwargs = ("attention_gradient", {"of": of, "passes": 1}) if of else ("attention_backward", {})
    for n, m, d_k, d_v in ((1, 1, 1, 1), (3, 3, 4, 2), (2, 5, 4, 3), (4, 130, 16, 1), (33, 33, 16, 5)):
        Q, K, V = dyadic(3, (2, 2, n, d_k), 2.0), dyadic(4, (2, 2, m, d_k), 2.0), dyadic(5, (2, 2, m, d_v), 2.0)
        masks = [] if mask is None else [np.random.default_rng(n).random((2, 2, n, m)) < 0.5]
        args = (dyadic(6, (2, 2, n, d_v), 2.0), Q, K, V, *masks)

        larger = laid(read(said), step, args, kwargs, dtype="float64")

        assert larger.args[1].shape[2:] > (n, d_k)
        if mask and of is None and n > 1:  # who has no key may have weights of NaN, and NaN·0 is NaN
            others = np.setdiff1d(np.arange(larger.args[1].shape[2]), larger.parts[0].places[2])
            assert larger.args[4][..., others, :].all()
        assert_equal(larger.taken(oracle(step, *larger.args, **larger.kwargs)), oracle(step, *args, **kwargs), 2**-44)


def test_what_no_padding_leaves_as_it_is_is_refused():
    """The mean of a norm is over all of its features; and ∞·0 is NaN."""
    X, wide = np.ones((1, 2, 3)), {"W": np.ones((3, 2))}
    for step, args, kwargs, said, why in (
        ("layer_norm", X, {"gain": np.ones(3), "bias": np.ones(3)}, {"d_model": (64, 128)}, "nothing that is added to d_model"),
        ("output_projection", X * np.inf, wide, {"d_model": (64, 128)}, "numbers that are not finite"),
        ("output_projection", X, wide, {"vocab": (1, 0)}, "no size of vocab"),
    ):
        with pytest.raises(NotOffered, match=why):
            laid(read(said), step, (args,), kwargs, dtype="float64")


def test_a_laid_gradient_is_no_smaller_than_the_one_that_is_asked_for():
    """Where Q is twice as large, its gradient is half: dO is twice as large then. In float16 both must fit."""
    Q = dyadic(3, (1, 1, 2, 4), 2.0)
    domain = read({"d_k": (16,), "n": "multiple of 32", "m": "multiple of 32"})

    larger = laid(domain, "attention_backward", (Q, Q, Q, Q), {}, dtype="float16")

    assert np.abs(larger.args[0]).max() == 2 * np.abs(Q).max()
    assert [part.factor for part in larger.parts] == [1.0, 0.5, 0.5]
    too_large = laid(domain, "attention_backward", (2.0**126 * Q, Q, Q, Q), {}, dtype="float32")
    assert [part.factor for part in too_large.parts] == [2.0, 1.0, 1.0]
    with pytest.raises(NotOffered, match="gradients that would be too small or too large there"):
        laid(domain, "attention_backward", (2.0**13 * Q, Q, Q, Q), {}, dtype="float16")
