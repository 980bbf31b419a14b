"""Requests: what a model was asked before leaves nothing behind.

A model serves one request after another, with the same parameters and often with inputs of the same shape. Each step is asked
first for other tokens, another mask or other rows of that shape (its parameters are the same objects in memory), and then judged
on the second request: an encoder output, a mask or keys and values kept by shape belong to the first. Two requests at once, each
with a cache of its own, are asked for in `properties.test_cache`.
"""

from collections.abc import Callable

import numpy as np

from properties.assertions import assert_greedy, assert_rounding_only
from properties.cache_machine import seeded_model
from properties.claims import claim
from properties.implementations.impl import Impl
from properties.implementations.layouts import ASKED_BEFORE
from properties.inputs.parameters import Call, dyadic

D_MODEL, SEED = 4, 11
SOURCE = np.array([[1, 5, 2, 6], [4, 0, 3, 3]])
TARGET = np.array([[1, 4, 2], [2, 0, 5]])
REAL, TARGET_MASK = np.array([[True] * 4, [True, True, False, False]]), np.array([[True, True, False], [True] * 3])
MODEL = {"parameters": seeded_model(SEED, D_MODEL, 6, source_vocab=7, vocab=6, layers=1), "h": 2}
X, M = dyadic(5, (2, 3, D_MODEL), 2.0), dyadic(6, (2, 4, D_MODEL), 2.0)
MASK = np.eye(3, dtype=bool) | np.array([[[False, False, True], [True, False, False], [False, True, False]]] * 2)[:, None]
MASK[1] = MASK[1].swapaxes(-1, -2)  # each token attends to itself and to one other, to another one in each sequence
MEMORY_MASK = REAL[:, None, None]

ENCODER, DECODER = MODEL["parameters"]["encoder"], MODEL["parameters"]["decoder"]
CALLS = {
    "multi_head": ("H3", Call((X, M, MEMORY_MASK), {"h": 2, **ENCODER[0]["self_attention"]})),
    "encoder_layer": ("L1", Call((X, MASK), {"h": 2, "layer": ENCODER[0]})),
    "encoder": ("L2", Call((X, MASK), {"h": 2, "layers": ENCODER})),
    "decoder_layer": ("L3", Call((X, M, MASK, MEMORY_MASK), {"h": 2, "layer": DECODER[0]})),
    "decoder": ("C3", Call((X, M, MASK, MEMORY_MASK), {"h": 2, "layers": DECODER})),
    "transformer": ("T1", Call((SOURCE, TARGET, REAL, TARGET_MASK), MODEL)),
}
"""Of each step the claim it is about, and the second request."""


def second_request(step: str) -> Callable[..., None]:
    """The property that `step` answers a second request as if it were the first."""
    identifier, call = CALLS[step]

    def test(impl: Impl) -> None:
        got = impl.reading(ASKED_BEFORE).call(step, *call.args, **call.kwargs)

        assert_rounding_only(impl, step, got, *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_{step}_answers_a_second_request"
    test.__doc__ = f"{step} asked again with the same parameters, for other inputs of the same shape: rounding alone."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


test_multi_head_answers_a_second_request = second_request("multi_head")
test_encoder_layer_answers_a_second_request = second_request("encoder_layer")
test_encoder_answers_a_second_request = second_request("encoder")
test_decoder_layer_answers_a_second_request = second_request("decoder_layer")
test_decoder_answers_a_second_request = second_request("decoder")
test_transformer_answers_a_second_request = second_request("transformer")


@claim("G1", needs="generation")
def test_generation_answers_a_second_request_of_the_same_shape(impl):
    """Other sources of the same shape, with other padding, are continued by their own likeliest tokens."""
    call = Call((SOURCE, REAL), {**MODEL, "bos": 1, "eos": 0, "length": 4})

    assert_greedy(impl, call, impl.reading(ASKED_BEFORE).generation(*call.args, **call.kwargs))
