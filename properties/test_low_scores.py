"""Low scores: a hidden key has no weight, however low the visible ones score. A finite number in place of −∞ is not low enough.

Each query sees a single key, whose score is as low as said; hidden keys score 0 or as high. Other values in the hidden places must
then leave the answer bit-identical: whatever finite number is put in place of a hidden score, or added to it, the lowest scores of
the dtype are below it. A kernel whose exponentials overflow there may answer NaN, as long as it does so both times: how far scores
may reach is another property's.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_at_most, assert_identical
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.impl import DTYPES, Impl
from properties.inputs.parameters import BIASES, Call, Nested

EXACT = 2.0**30  # up to here exponentials to base 2 of x·c − m·c, rounded once, are finite: the answer is judged, too
OUTSIDE = {"float16": (65504.0**2,)}  # not of float32, in which kernels hold the scores of float16


def lowest(dtype: str) -> list[float]:
    """How far below 0 the visible scores are: by about 10⁴, 10⁹, half of the dtype's range and all of it."""
    largest = torch.finfo(DTYPES[dtype]).max
    usual = [low for low in (2.0**14, EXACT, 2.0**127) if low < largest / 2]
    return [*usual, 2.0 ** (np.frexp(largest)[1] - 1), largest, *OUTSIDE.get(dtype, ())]


def factors(low: float) -> tuple[float, float]:
    """Two numbers that multiply to `low`, each about its root: if possible, the first is a power of two."""
    first = 65504.0 if low in OUTSIDE["float16"] else 2.0 ** (np.frexp(low)[1] // 2)
    return first, low / first


SEES = np.array([True, False, False])
LEVELS = np.array([1.0, 0.0, -1.0])  # of the keys: the visible one scores as low as said, the hidden ones 0 and as high


@claim("M2", needs="attention")
def test_masked_keys_have_no_weight_at_the_lowest_scores(impl):
    """Down to the lowest score of the dtype, the hidden values leave no trace; and the visible one is what comes out."""
    for low in lowest(impl.dtype):
        q, k = factors(low)
        Q, K = np.full((1, 1, 1, 1), -q), (k * LEVELS)[None, None, :, None]
        before, after = (impl.attention(Q, K, np.array(V)[None, None, :, None], SEES[None]) for V in ((1, 1, 2.0), (1, 64, 128.0)))

        if low <= EXACT and low < torch.finfo(DTYPES[impl.dtype]).max / 2:
            off = float(max(abs(before - 1).max(), abs(after - 1).max()))
            assert_at_most(off, sum_bound(3, impl.dtype, 1.0), f"|attention to one value of 1 − 1| at a score of {-low:.5g}")
        assert_identical(after, before, f"attention to one key of score {-low:.5g}, after hidden values changed")


@claim("A5", needs="softmax")
def test_minus_infinity_has_no_weight_however_low_the_other_scores_are(impl):
    """A score of −∞ is below every other one, the lowest number of the dtype included."""
    for low in lowest(impl.dtype):
        if low <= torch.finfo(DTYPES[impl.dtype]).max:
            P = impl.softmax(np.array([[-low, -np.inf, -np.inf]]))

            hidden = np.where(np.isnan(P), 0.0, P)[0, 1:]
            assert_identical(hidden, np.zeros(2), f"weights of −∞ beside a score of {-low:.5g}")


# In multi-head attention, layers and models ----------------------------------------------------------------------------

H = D_MODEL = 4
PLAIN = {"gain": np.ones(D_MODEL), "bias": np.zeros(D_MODEL)}
SCORING_LOW = {"gain": np.array([0.0, 1, 1, 1]), "bias": np.eye(D_MODEL)[0]}  # of the memory: every token of it is one to be seen


def tokens(value: float) -> np.ndarray:
    """Three tokens: their first feature is how they score, the second what they say, which is up to `value` in the last two."""
    return np.pad(np.array([LEVELS, [1.0, value, 2 * value]]).T, ((0, 0), (0, D_MODEL - 2)))[None]


def heads(low: float) -> Nested:
    """Heads of one feature, all of which score tokens by their first feature and pass the second one on."""
    q, k = factors(low)
    first, second = np.eye(D_MODEL)[:2, :, None] * np.ones(H)
    return {"W_Q": -q * first, "W_K": k * first, "W_V": second, "W_O": np.diag([1.0, -1, 2, 0]), **dict.fromkeys(BIASES)}


def layer(low: float, *attentions: str, last_norm: Nested = PLAIN) -> Nested:
    """A layer of such heads; its feed-forward step adds nothing."""
    norms = {f"norm_{i + 1}": PLAIN for i in range(len(attentions))} | {f"norm_{len(attentions) + 1}": last_norm}
    square, row = np.zeros((D_MODEL, D_MODEL)), np.zeros(D_MODEL)
    nothing = {"W_1": square, "b_1": row, "W_2": square, "b_2": row}
    return {name: heads(low) for name in attentions} | norms | {"feed_forward": nothing}


def of_heads(low: float, value: float) -> Call:
    """One token looks at three."""
    return Call((tokens(1.0)[:, :1], tokens(value), SEES[None]), {"h": H, **heads(low)})


def of_an_encoder_layer(low: float, value: float) -> Call:
    """Two tokens of three fill up the length."""
    return Call((tokens(value), SEES[None, None, None]), {"h": H, "layer": layer(low, "self_attention")})


def of_a_decoder_layer(low: float, value: float) -> Call:
    """Two tokens lie ahead of the first, and two tokens of the memory fill up its length."""
    masks = None, SEES[None, None, None]
    return Call((tokens(value), tokens(value), *masks), {"h": H, "layer": layer(low, "self_attention", "cross_attention")})


def of_a_transformer(low: float, value: float) -> Call:
    """The same, from token ids on: the first token of the vocabulary is seen, the others are not."""
    table = np.array([[1.0, 0, 0, 0], [-1.5, 4, 0, 0], [-1.5, -4, 0, 0]])
    ids = np.array([[0, 1, 1]] if value == 1 else [[0, 2, 2]])
    parameters = {
        "source_embedding": table,
        "target_embedding": table,
        "encoder": [layer(low, "self_attention", last_norm=SCORING_LOW)],
        "decoder": [layer(low, "self_attention", "cross_attention")],
        "W_out": np.eye(D_MODEL)[:, :3],
        "b_out": None,
        "encoder_norm": None,
        "decoder_norm": None,
    }
    return Call((ids, ids, SEES[None], None), {"parameters": parameters, "h": H, "scale_embedding": False})


def hidden_tokens_have_no_weight(identifier: str, step: str, asked: Callable[[float, float], Call]) -> Callable[..., None]:
    """The property that the first token of `step` does not change with what hidden tokens say, however low it scores itself."""

    def test(impl: Impl) -> None:
        for low in lowest(impl.dtype):
            with suppress(UnsatisfiedAssumption):  # it does not take such arguments, and that was counted
                before, after = (
                    impl.call(step, *call.args, **call.kwargs) for call in (asked(low, value) for value in (1.0, 64.0))
                )
                assert_identical(after[:, 0], before[:, 0], f"{step} at scores of {-low:.5g}, after hidden tokens changed")

    test.__name__ = test.__qualname__ = f"test_{step}_gives_hidden_words_no_weight_at_the_lowest_scores"
    test.__doc__ = f"{step}: down to the lowest score of the dtype, tokens that are hidden leave no trace in the first token."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


test_multi_head_gives_hidden_tokens_no_weight_at_the_lowest_scores = hidden_tokens_have_no_weight("M2", "multi_head", of_heads)
test_encoder_layer_gives_hidden_tokens_no_weight_at_the_lowest_scores = hidden_tokens_have_no_weight(
    "L1", "encoder_layer", of_an_encoder_layer
)
test_decoder_layer_gives_hidden_tokens_no_weight_at_the_lowest_scores = hidden_tokens_have_no_weight(
    "M3", "decoder_layer", of_a_decoder_layer
)
test_transformer_gives_hidden_tokens_no_weight_at_the_lowest_scores = hidden_tokens_have_no_weight(
    "T3", "transformer", of_a_transformer
)
