"""Memory layouts: what an array says does not depend on how it lies in memory.

Every step is handed its arrays transposed, strided, at an offset, expanded (stride 0) and, in NumPy, backwards, with NaN in every
gap and before and behind; the answer is judged as ever, and not a bit of the memory, gaps included, may have changed. Or it was
asked before about the same arrays, when they held other numbers: what it remembers of an array is worth nothing by then.
"""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.budgets import assert_rounding_only
from properties.calls import Asked
from properties.claims import claim
from properties.implementations.subject import Subject
from properties.layouts import LAYOUTS, REFILLED
from properties.minimise import leaves, replaced
from properties.parameter_strategies import (
    SEEDS,
    Call,
    decoder_layer_calls,
    encoder_layer_calls,
    features,
    feed_forward_calls,
    multi_head_calls,
    norm_weights,
    transformer_calls,
    weights,
)
from properties.strategies import attention_calls, scores


def constant_along_an_axis(step: str, call: Call, seed: int) -> Call:
    """The call with every array of numbers the same along one of its axes: what may be handed over with stride 0."""
    rng, asked = np.random.default_rng(seed), Asked(step, call.args, call.kwargs)
    for path, array in leaves(asked):
        if array.dtype == np.float64 and array.ndim and array.size:
            axis = int(rng.integers(array.ndim))
            asked = replaced(asked, path, np.repeat(array.take([0], axis), array.shape[axis], axis))
    return Call(asked.args, asked.kwargs)


@st.composite
def softmax_calls(draw: st.DrawFn) -> Call:
    """One array of scores."""
    return Call((draw(scores()),), {})


@st.composite
def norm_calls(draw: st.DrawFn, *, residual: bool = False) -> Call:
    """One LayerNorm, with or without a sublayer's answer to be added first."""
    b, n, d = (draw(st.integers(low, 4)) for low in (1, 1, 2))
    return Call(tuple(draw(features(b, n, d)) for _ in range(1 + residual)), draw(norm_weights(d)))


@st.composite
def projection_calls(draw: st.DrawFn) -> Call:
    """Features to logits, with or without a bias."""
    b, n, d, vocab = (draw(st.integers(1, 4)) for _ in range(4))
    return Call((draw(features(b, n, d)),), {"W": draw(weights(d, vocab)), "b": draw(st.none() | weights(vocab))})


def any_layout(identifier: str, step: str, calls: st.SearchStrategy[Call]) -> Callable[..., None]:
    """The property that `step` answers alike in whichever layout it is asked."""

    def test(subject: Subject, call: Call, layout: str, seed: int) -> None:
        if layout == "expanded":
            call = constant_along_an_axis(step, call, seed)

        got = subject.reading(layout).call(step, *call.args, **call.kwargs)

        assert_rounding_only(subject, step, got, *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_{step}_reads_every_layout"
    test.__doc__ = f"{step} answers within the budget, however its arrays lie and whatever they held before, and writes nowhere."
    drawn = given(call=calls, layout=st.sampled_from([*sorted(LAYOUTS), REFILLED]), seed=SEEDS)(test)
    return claim(identifier, needs=step)(drawn)  # as @claim(…) would


test_softmax_reads_every_layout = any_layout("A5", "softmax", softmax_calls())
test_attention_reads_every_layout = any_layout("A6", "attention", attention_calls())
test_multi_head_reads_every_layout = any_layout("H3", "multi_head", multi_head_calls())
test_layer_norm_reads_every_layout = any_layout("R2", "layer_norm", norm_calls())
test_residual_norm_reads_every_layout = any_layout("R1", "residual_norm", norm_calls(residual=True))
test_feed_forward_reads_every_layout = any_layout("F2", "feed_forward", feed_forward_calls())
test_encoder_layer_reads_every_layout = any_layout("L1", "encoder_layer", encoder_layer_calls())
test_decoder_layer_reads_every_layout = any_layout("L3", "decoder_layer", decoder_layer_calls())
test_output_projection_reads_every_layout = any_layout("O1", "output_projection", projection_calls())
test_transformer_reads_every_layout = any_layout("T1", "transformer", transformer_calls())
