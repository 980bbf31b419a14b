"""The range of a dtype: numbers inside a step may be larger than its arguments, its scaled scores and its result, and must fit too.

float16 ends at 65504, and everything here that somebody is handed fits into it: arguments, Q, K, V, scores, hidden units, results.
What overflows is on the way: products that cancel, exponentials times values before their sum divides them, the squares and the
sum of a row before its mean, exponentials of logits, and Q·Kᵀ before it is divided by √d_k. All that is summed in float32, as the
contracts say, stays finite. In wider dtypes the same calls are asked with larger numbers, beyond float16 and well within float32:
a bfloat16 that is computed in float16 inside has all the digits it needs, and not the range.

Whether Q·Kᵀ may be stored undivided is a choice that had to be made. It may be rounded to the dtype, as the eager contract says;
it may not overflow there (`contracts.UNSCALED`). torch never lets it: its attention divides the queries first, or computes in
float32; and those whose float16 models lost a row to it call it a bug and mend it by dividing first.
"""

from collections.abc import Callable, Iterator

import numpy as np

from properties.assertions import assert_rounding_only
from properties.cache_machine import CacheOf
from properties.claims import claim
from properties.implementations.impl import Impl
from properties.inputs.parameters import BIASES, Call, Nested

NO_BIAS = dict.fromkeys(BIASES)
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
EYE = np.eye(4)


def unit(dtype: str) -> float:
    """By how much larger the numbers are than those for float16: beyond its range where there is room for them."""
    return 1.0 if dtype == "float16" else 2.0**24


# ---- one step at a time, each with numbers that fit into float16 times a unit ----


def _attention(one: float) -> Iterator[Call]:
    values = np.array([[[[40960.0], [40960.0], [32768.0], [49152.0]]]]) * one
    Q, same = np.array([[[[512.0, 512.0]]]]), np.broadcast_to([512.0, -512.0], (1, 1, 4, 2))
    yield Call((np.zeros((1, 1, 1, 2)), same * one, values, None), {})  # the sum of four values
    above = np.where(np.arange(4)[:, None] < 2, same + np.array([0.0, 2.0]), same)
    yield Call((Q * one, above * one, values, None), {})  # products of 2^18 that cancel, but for 2^10
    pointed = np.array([320.0, 320.0, 160.0, -320.0])[:, None] * EYE[0]
    yield Call((256 * EYE[:1][None, None], pointed[None, None] * one, values, None), {})  # a product of 81920, a score of 40960


def _softmax(one: float) -> Iterator[Call]:
    yield Call((np.array([[61440.0, 61440.0, 0.0], [-61440.0, -61440.0, -65024.0]]) * one,), {})


def _layer_norm(one: float) -> Iterator[Call]:
    rows = np.array([49152.0, -49152.0, 16384.0, -32768.0]), np.array([61440.0, 61440.0, 57344.0, 53248.0])
    yield Call((np.stack(rows)[None] * one,), {"gain": 1 + SIGNS / 4, "bias": SIGNS})
    yield Call((np.where(np.arange(64) % 2, 40960.0, 36864.0)[None, None] * one,), {"gain": np.ones(64), "bias": np.zeros(64)})


def _residual_norm(one: float) -> Iterator[Call]:
    X, Y = np.array([[[32768.0, -32768.0, 16384.0, 8192.0]]]), np.array([[[24576.0, -16384.0, 16384.0, -8192.0]]])
    yield Call((X * one, Y * one), {"gain": 1 + SIGNS / 4, "bias": SIGNS})


def _feed_forward(one: float) -> Iterator[Call]:
    W_1 = np.array([[512.0, 96.0, 96.0], [-512.0, 0.0, 0.0]])  # the first unit's products cancel, the others are 49152
    W_2 = np.array([[1.0, 2.0], [2.0, 2.0], [-2.0, -2.0]])
    for activation in ("relu", "gelu", "gelu_tanh"):
        weights = {"W_1": W_1 * one, "b_1": np.array([8.0, 0.0, 0.0]), "W_2": W_2, "b_2": np.ones(2), "activation": activation}
        yield Call((np.full((1, 1, 2), 512.0),), weights)


def _output_projection(one: float) -> Iterator[Call]:
    yield Call((np.full((1, 1, 2), 512.0),), {"W": np.array([[512.0, 96.0], [-512.0, 16.0]]) * one, "b": np.array([8.0, 0.0])})


def _next_token(_: float) -> Iterator[Call]:
    yield Call((np.array([[[1.0], [-1.0]]]),), {"W": np.array([[2048.0, 2048.0, 1024.0]])})


def _embedding(one: float) -> Iterator[Call]:
    yield Call((np.array([[0, 1]]),), {"table": np.array([[8192.0], [-4096.0]]).repeat(16, axis=1) * one})


# ---- steps that hold attention: one token each, whose only weight is 1 unless its score overflows ----


def _multi_head(one: float) -> Iterator[Call]:
    plain = {"W_Q": EYE, "W_K": EYE, "W_V": EYE, "W_O": EYE, **NO_BIAS}
    X = 160 * SIGNS[None, None]
    yield Call((X, X), {"h": 1, **plain})  # a product of 102400, a score of 51200
    M = np.array([[[40960.0, 40960.0, 40704.0, 40704.0]]]).repeat(4, axis=1) * one
    cancelling = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, -1.0]])
    # Four equal values to average, and four features that cancel: of any two parts of their sum, one column's are too large.
    yield Call((X, M), {"h": 2, **plain, "W_K": 0 * EYE, "W_O": 2 * cancelling})


def layer(*sublayers: str) -> Nested:
    """A layer whose attentions hand on what they read, and whose feed-forward answers 0."""
    norms = {f"norm_{i + 1}": {"gain": 1 + SIGNS / 4, "bias": SIGNS} for i in range(len(sublayers) + 1)}
    attention = {"W_Q": EYE, "W_K": EYE, "W_V": EYE, "W_O": EYE, **dict.fromkeys(BIASES, np.zeros(4))}
    silent = {"W_1": np.eye(4, 3), "b_1": np.zeros(3), "W_2": np.zeros((3, 4)), "b_2": np.zeros(4)}
    return dict.fromkeys(sublayers, attention) | norms | {"feed_forward": silent}


ENCODER, DECODER = layer("self_attention"), layer("self_attention", "cross_attention")
TOKEN = 160 * SIGNS[None, None]  # its product with itself is 102400; added to what was read, its variance is that too


def _encoder_layer(_: float) -> Iterator[Call]:
    yield from (Call((TOKEN, None), {"layer": ENCODER, "h": 1, "norm": norm}) for norm in ("post", "pre"))


def _decoder_layer(_: float) -> Iterator[Call]:
    yield from (Call((TOKEN, TOKEN, None, None), {"layer": DECODER, "h": 1, "norm": norm}) for norm in ("post", "pre"))


def whole_model() -> Nested:
    """A model of one layer a side that reads its tokens as they stand; vocabularies of two tokens."""
    tables = {f"{side}_embedding": np.stack([80 * SIGNS, -80 * SIGNS]) for side in ("source", "target")}
    return {**tables, "encoder": [ENCODER], "decoder": [DECODER], "W_out": np.eye(4, 2), "b_out": np.zeros(2)}


def _transformer(_: float) -> Iterator[Call]:
    yield Call((np.array([[0]]), np.array([[1]])), {"parameters": whole_model(), "h": 1})


def nothing_overflows(identifier: str, step: str, calls: Callable[[float], Iterator[Call]]) -> Callable[..., None]:
    """The property that `step` answers such calls within the budget."""

    def test(impl: Impl) -> None:
        for call in calls(unit(impl.dtype)):
            assert_rounding_only(impl, step, impl.call(step, *call.args, **call.kwargs), *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_nothing_overflows_inside_{step}"
    test.__doc__ = f"Where the arguments, the scaled scores and the result of {step} fit into the dtype, rounding alone is seen."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


CALLS = {
    "attention": ("A2", _attention),
    "softmax": ("A9", _softmax),
    "layer_norm": ("R2", _layer_norm),
    "residual_norm": ("R1", _residual_norm),
    "feed_forward": ("F1", _feed_forward),
    "output_projection": ("O1", _output_projection),
    "next_token": ("O1", _next_token),
    "embedding": ("E4", _embedding),
    "multi_head": ("H3", _multi_head),
    "encoder_layer": ("L1", _encoder_layer),
    "decoder_layer": ("L3", _decoder_layer),
    "transformer": ("T1", _transformer),
}
"""Of each step the claim it is about, and its calls."""

for _step, (_identifier, _calls) in CALLS.items():
    globals()[f"test_nothing_overflows_inside_{_step}"] = nothing_overflows(_identifier, _step, _calls)


@claim("G1", needs="kv_cache")
def test_nothing_overflows_inside_a_cache(impl):
    """A cache of the same model scores a token as the whole model does."""
    cache = CacheOf(impl, {"parameters": whole_model(), "h": 1})

    cache.judge(np.array([[0]]), None, [[0, "step", np.array([1])]])
