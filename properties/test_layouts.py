"""Memory layouts: what an array says does not depend on how it lies in memory.

Every step is handed its arrays transposed, strided, at an offset, expanded (stride 0) and, in NumPy, backwards, with NaN in every
gap and before and behind; the answer is judged as ever, and not a bit of the memory, gaps included, may have changed. All arrays of
a call lie in the same way, or each in its own: a kernel may take one array's strides for another's. Or the step was asked before
about the same arrays, when they held other numbers: what it remembers of an array is worth nothing by then.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_rounding_only
from properties.cache_machine import seeded_model
from properties.claims import claim
from properties.counterexample.minimise import leaves, replaced
from properties.implementations.calls import Asked
from properties.implementations.impl import Impl
from properties.implementations.layouts import BESIDE, CONTIGUOUS, LAYOUTS, REFILLED, of
from properties.inputs.attention import attention_calls, scores
from properties.inputs.parameters import (
    SEEDS,
    Call,
    decoder_layer_calls,
    dyadic,
    encoder_layer_calls,
    features,
    feed_forward_calls,
    multi_head_calls,
    norm_weights,
    transformer_calls,
    weights,
)


def side_by_side(names: Sequence[str]) -> list[str]:
    """Layouts for several arrays, out of a prime number of names: every two of as many arrays meet in every pair of names."""
    p = len(names)
    return [BESIDE.join(names[(i + k * j) % p] for k in range(p)) for i in range(p) for j in range(p)]


ONE_EACH = side_by_side([CONTIGUOUS, *sorted(LAYOUTS), CONTIGUOUS])
OF_THE_SAME_NUMBERS = side_by_side([CONTIGUOUS, *sorted(LAYOUTS.keys() - {"expanded"})])  # stride 0 needs equal numbers


def equal_where_expanded(step: str, call: Call, layout: str, seed: int) -> Call:
    """The call with every array that is to be expanded the same along one of its axes: what may be handed over with stride 0."""
    rng, asked = np.random.default_rng(seed), Asked(step, call.args, call.kwargs)
    for place, (path, array) in enumerate(leaves(asked)):
        if of(layout, place) == "expanded" and array.dtype == np.float64 and array.ndim and array.size:
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

    def test(impl: Impl, call: Call, layout: str, seed: int) -> None:
        call = equal_where_expanded(step, call, layout, seed)

        got = impl.reading(layout).call(step, *call.args, **call.kwargs)

        assert_rounding_only(impl, step, got, *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_{step}_reads_every_layout"
    test.__doc__ = f"{step} answers within the budget, however its arrays lie and whatever they held before, and writes nowhere."
    layouts = st.just(REFILLED) | st.sampled_from(sorted(LAYOUTS)) | st.sampled_from(ONE_EACH)
    return claim(identifier, needs=step)(given(call=calls, layout=layouts, seed=SEEDS)(test))  # as @claim(…) would


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


# Each array in its own way ----------------------------------------------------------------------------------------------


def some(seed: int, *shape: int) -> np.ndarray:
    """Numbers of a few bits."""
    return dyadic(2 + seed, shape)


def like_shaped(step: str) -> Call:
    """One call, in which arrays have the same shape wherever they may: what belongs to one then fits the other."""
    model = seeded_model(11, 4, 4, source_vocab=4, vocab=4, layers=1)
    X, M, masks = some(1, 2, 4, 4), some(2, 2, 4, 4), np.random.default_rng(3).random((2, 2, 1, 4, 4)) < 0.5
    masks |= np.eye(4, dtype=bool)
    match step:
        case "attention":
            return Call((*(some(k, 2, 2, 4, 4) for k in range(3)), np.repeat(masks[0], 2, axis=1)), {})
        case "multi_head":
            return Call((X, M, masks[0]), {"h": 2, **model["encoder"][0]["self_attention"]})
        case "residual_norm":
            return Call((X, M), {"gain": some(3, 4), "bias": some(4, 4)})
        case "feed_forward":
            return Call((X,), model["encoder"][0]["feed_forward"])
        case "encoder_layer":
            return Call((X, masks[0]), {"h": 2, "layer": model["encoder"][0]})
        case "decoder_layer":
            return Call((X, M, *masks), {"h": 2, "layer": model["decoder"][0]})
        case "output_projection":
            return Call((X,), {"W": some(3, 4, 4), "b": some(4, 4)})
        case _:
            tokens = np.random.default_rng(5).integers(0, 4, (2, 2, 4))
            real = np.arange(4) < np.array([[4, 2], [3, 4]])[..., None]
            return Call((*tokens, *real), {"h": 2, "parameters": model})


def any_pair_of_layouts(identifier: str, step: str) -> Callable[..., None]:
    """The property that `step` reads every array as that array lies, and not as another one does."""

    def test(impl: Impl) -> None:
        call, judged = like_shaped(step), set()
        for layout in OF_THE_SAME_NUMBERS:
            with suppress(UnsatisfiedAssumption):  # it does not take such arrays, and that was counted
                got = impl.reading(layout).call(step, *call.args, **call.kwargs)
                if got.tobytes() not in judged:
                    assert_rounding_only(impl, step, got, *call.args, **call.kwargs)
                    judged.add(got.tobytes())

    test.__name__ = test.__qualname__ = f"test_{step}_reads_each_array_in_its_own_layout"
    test.__doc__ = f"{step} answers within the budget where arrays of the same shape lie in different ways: all pairs of ways."
    return claim(identifier, needs=step)(test)


test_attention_reads_each_array_in_its_own_layout = any_pair_of_layouts("A6", "attention")
test_multi_head_reads_each_array_in_its_own_layout = any_pair_of_layouts("H3", "multi_head")
test_residual_norm_reads_each_array_in_its_own_layout = any_pair_of_layouts("R1", "residual_norm")
test_feed_forward_reads_each_array_in_its_own_layout = any_pair_of_layouts("F2", "feed_forward")
test_encoder_layer_reads_each_array_in_its_own_layout = any_pair_of_layouts("L1", "encoder_layer")
test_decoder_layer_reads_each_array_in_its_own_layout = any_pair_of_layouts("L3", "decoder_layer")
test_output_projection_reads_each_array_in_its_own_layout = any_pair_of_layouts("O1", "output_projection")
test_transformer_reads_each_array_in_its_own_layout = any_pair_of_layouts("T1", "transformer")
