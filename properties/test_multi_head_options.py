"""What a whole layer of attention is asked for besides its output: a causal flag beside any mask, and the weights of each head.

Both are asked for only where they are offered. A row that is fully masked is left out, but in the properties that are about it.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.conventions import seen_by_heads
from properties.implementations.impl import Impl
from properties.inputs.attention import farthest
from properties.inputs.attention_options import layer_calls, opened, with_causal
from properties.inputs.parameters import BIASES, SEEDS, Call, dyadic

CAUSAL = ("multi_head", "multi_head.causal")
WEIGHTS = "multi_head_with_weights"


def output_of(answer: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
    """What a layer says, with its weights or without."""
    return answer["output"] if isinstance(answer, dict) else answer


# Agreement ------------------------------------------------------------------------------------------------------------


@claim("X10", needs=CAUSAL)
@given(layer_calls())
def test_causal_multi_head_agrees_with_the_oracle(impl, call):
    """Under any mask that stands beside the flag, for n = m, n < m and n > m: the oracle's answer but for rounding."""
    asked = with_causal(call, impl, "multi_head")

    got = impl.multi_head(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, "multi_head", got, *asked.args, **asked.kwargs)


@claim("X10", needs=CAUSAL)
@given(layer_calls())
def test_causal_multi_head_equals_the_explicit_mask(impl, call):
    """What is asked with the flag is judged as what is asked with the mask of both written out."""
    asked = with_causal(call, impl, "multi_head")
    X, M, _ = asked.args
    others = {name: value for name, value in asked.kwargs.items() if name != "causal"}

    got = impl.multi_head(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, "multi_head", got, X, M, seen_by_heads(asked.args, asked.kwargs, impl.conventions), **others)


@claim("X11", needs=WEIGHTS)
@given(layer_calls())
def test_multi_head_with_weights_agrees_with_the_oracle(impl, call):
    """Output and weights, under any mask, and with the causal flag where that is offered."""
    asked = with_causal(call, impl, WEIGHTS)

    got = impl.multi_head_with_weights(*asked.args, **asked.kwargs)

    assert_rounding_only(impl, WEIGHTS, got, *asked.args, **asked.kwargs)


@claim("X11", needs=("multi_head", WEIGHTS))
@given(layer_calls())
def test_asking_for_weights_changes_the_output_by_rounding_alone(impl, call):
    """With them and without, the layer says what the oracle's layer without weights says."""
    asked = with_causal(call, impl, WEIGHTS) if impl.offers("multi_head.causal") else opened(call, impl.conventions)

    got = impl.multi_head_with_weights(*asked.args, **asked.kwargs)["output"], impl.multi_head(*asked.args, **asked.kwargs)

    for output in got:
        assert_rounding_only(impl, "multi_head", output, *asked.args, **asked.kwargs)


@claim("X11", needs=WEIGHTS)
@given(layer_calls())
def test_returned_weights_sum_to_one_over_what_is_seen(impl, call):
    """None is negative, hidden keys have none, and each row of each head sums to 1 within the rounding of the dtype."""
    asked = with_causal(call, impl, WEIGHTS)
    seen = seen_by_heads(asked.args, asked.kwargs, impl.conventions)

    P = impl.multi_head_with_weights(*asked.args, **asked.kwargs)["weights"]

    assert_identical(P[~seen], np.zeros(int((~seen).sum())), "weights of keys that are hidden")
    assert_at_most(-P.min(), 0.0, "−smallest weight")
    assert_at_most(np.abs(P.sum(axis=-1) - 1).max(), sum_bound(P.shape[-1] + 2, impl, 1.0), "|Σ P − 1|")


# Who sees whom --------------------------------------------------------------------------------------------------------

LENGTHS = ((1, 1), (3, 3), (2, 5), (5, 2), (17, 17), (16, 33), (33, 16))
MASKED = (4, 4), (3, 5), (5, 3)  # lengths under masks of every shape, of two sequences and two heads


def every_shape(b: int, h: int, n: int, m: int) -> list[tuple[int, ...]]:
    """Every shape that broadcasts to (b, h, n, m): of no axis to four, each of them whole or 1."""
    whole = (b, h, n, m)
    return list(dict.fromkeys(shape for axes in range(5) for shape in product(*((1, size) for size in whole[4 - axes :]))))


def layers_that_show_who_sees_whom(**options: bool) -> Iterator[Call]:
    """Layers without scores whose values are one-hot: each head's slice of the output is its row of weights."""
    rng = np.random.default_rng(7)
    for (n, m), masked in [*((lengths, False) for lengths in LENGTHS), *((lengths, True) for lengths in MASKED)]:
        b, h = (2, 2) if masked else (1, 1)
        M = np.broadcast_to(np.tile(np.eye(m), h), (b, m, h * m)).copy()
        weights = {f"W_{name}": np.eye(h * m) * (name in "VO") for name in "QKVO"} | dict.fromkeys(BIASES)
        for shape in every_shape(b, h, n, m) if masked else [None]:
            mask = None if shape is None else np.asarray(rng.random(shape) < 0.7)
            yield Call((np.zeros((b, n, h * m)), M, mask), {"h": h, **weights, **options})


def assert_sees(impl: Impl, step: str, **options: bool) -> None:
    """The set of keys that each query of each head sees, read off the output, and off the weights where they are returned."""
    for call in layers_that_show_who_sees_whom(**options):
        (X, M, mask), h = call.args, call.kwargs["h"]
        seen = seen_by_heads(call.args, call.kwargs, impl.conventions)
        (b, _, n, m), rows = seen.shape, seen.any(axis=-1).all(axis=1)  # in which every head sees something
        flags = " and ".join([*options, *(() if mask is None else (f"a mask of shape {mask.shape}",))])

        with suppress(UnsatisfiedAssumption):  # not taken for these lengths or this mask, and counted
            answer = impl.call(step, X, M, mask, **call.kwargs)
            told = output_of(answer).reshape(b, n, h, m).swapaxes(1, 2)
            for what, got in (("who sees whom", told), *([("weights", answer["weights"])] if isinstance(answer, dict) else [])):
                of_rows = [np.moveaxis(each, 1, 2)[rows] for each in (got > 0, seen)]
                assert_identical(*of_rows, f"{step}: {what} with {flags or 'neither'}, n = {n}, m = {m}")


@claim("X10", needs=CAUSAL)
def test_causal_multi_head_shows_each_query_what_came_before(impl):
    """For n and m of any order, at the edges of blocks, and beside masks of every shape that broadcasts: what both show."""
    assert_sees(impl, "multi_head", causal=True)


@claim("X11", needs=WEIGHTS)
def test_returned_weights_show_who_sees_whom(impl):
    """Masks of every shape, of a layer that returns weights, without the causal flag."""
    assert_sees(impl, WEIGHTS)


@claim("X11", needs=(WEIGHTS, f"{WEIGHTS}.causal"))
def test_causal_weights_show_what_came_before(impl):
    """The same with the flag: it holds where weights are asked for, too."""
    assert_sees(impl, WEIGHTS, causal=True)


def later_tokens_move_no_bit(identifier: str, step: str) -> Callable[..., None]:
    """The property that tokens which a row does not see, replaced, leave it as it is: of a layer with the causal flag."""

    def test(impl: Impl, call: Call, seed: int) -> None:
        asked = with_causal(call, impl, step)
        X, M, mask = asked.args
        n, m = X.shape[1], M.shape[1]
        past = seen_by_heads((X, M), asked.kwargs, impl.conventions)[0, 0]
        first = 1 + seed % m  # the first token that is replaced
        before = ~past[:, first:].any(axis=-1)
        later = np.where(np.arange(m)[:, None] < first, M, dyadic(2 + seed, M.shape, farthest(impl.dtype) ** 0.5))
        X_later = np.where(before[:, None], X, later) if M is X else X

        told, again = (
            output_of(impl.call(step, *args, mask, **asked.kwargs)) for args in ((X, M), (X_later, X_later if M is X else later))
        )

        assert_identical(again[:, before], told[:, before], f"{step}: rows before token {first} of {n}, {m}, which changed")

    test.__name__ = test.__qualname__ = f"test_later_tokens_move_no_bit_of_causal_{step}"
    test.__doc__ = f"{step} with its causal flag, under any mask: rows that do not see a token are the same, bit for bit."
    return claim(identifier, needs=(step, f"{step}.causal"))(given(call=layer_calls(), seed=SEEDS)(test))  # as @claim(…) would


test_later_tokens_move_no_bit_of_causal_multi_head = later_tokens_move_no_bit("X10", "multi_head")
test_later_tokens_move_no_bit_of_causal_multi_head_with_weights = later_tokens_move_no_bit("X11", WEIGHTS)


# Rows that see nothing ------------------------------------------------------------------------------------------------


def fully_masked_rows(identifier: str, step: str, *, causal: bool) -> Callable[..., None]:
    """The property that rows which mask and order together mask fully get what is declared of them, and no other row notices."""

    def test(impl: Impl, call: Call, seed: int) -> None:
        call = call.but(W_Q=np.zeros_like(call.kwargs["W_Q"]), b_Q=None, **({"causal": True} if causal else {}))
        X, _, _ = call.args  # which looks at itself, and all scores are 0
        b, n, d_model = X.shape
        past = np.tri(n, dtype=bool) if causal else np.ones((n, n), dtype=bool)
        rows = np.random.default_rng(seed).random((b, n)) < 0.5
        everything = np.ones((b, 1, n, n), dtype=bool)

        got, seeing = (
            impl.call(step, X, X, mask, **call.kwargs) for mask in (everything & ~(rows[:, None, :, None] & past), everything)
        )

        assert_identical(output_of(got)[~rows], output_of(seeing)[~rows], f"{step}: rows that see everything that came before")
        if (kind := impl.conventions.fully_masked_row) == "mean":
            mean = np.broadcast_to(rows[:, None, :, None], everything.shape) | past
            plain = {name: value for name, value in call.kwargs.items() if name != "causal"}
            assert_rounding_only(impl, step, got, X, X, mean, **plain)
            return
        nothing = np.zeros(d_model) if call.kwargs["b_O"] is None else call.kwargs["b_O"]
        declared = nothing if kind == "zeros" else np.full(d_model, np.nan)
        told = output_of(got)[rows]
        assert_identical(told, np.broadcast_to(declared, told.shape), f"{step}: rows that are fully masked")
        if isinstance(got, dict):
            weights = np.moveaxis(got["weights"], 1, 2)[rows]
            assert_identical(weights, np.full(weights.shape, 0.0 if kind == "zeros" else np.nan), "weights of rows fully masked")

    named = f"causal_{step}" if causal else step
    test.__name__ = test.__qualname__ = f"test_fully_masked_rows_of_{named}_follow_the_declared_convention"
    test.__doc__ = f"Of {step}, {'by mask and order together' if causal else 'by the mask'}: zeros, NaN or the mean, as declared."
    needs = (step, f"{step}.causal") if causal else (step,)
    return claim(identifier, needs=needs)(given(call=layer_calls(itself=True, masked=False), seed=SEEDS)(test))


test_fully_masked_rows_of_causal_multi_head_follow_the_declared_convention = fully_masked_rows("X10", "multi_head", causal=True)
test_fully_masked_rows_of_multi_head_with_weights_follow_the_declared_convention = fully_masked_rows("X11", WEIGHTS, causal=False)
test_fully_masked_rows_of_causal_multi_head_with_weights_follow_the_declared_convention = fully_masked_rows(
    "X11", WEIGHTS, causal=True
)
