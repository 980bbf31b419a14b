"""Axes of length 0: the last batch of a shard holds no sequence, a query may find no key to look at.

The answer has the shape that follows from the others, and what a row without keys gets is what a row gets that is fully masked. An
implementation may refuse such a question in an exception of its own; what it may not do is to answer it wrongly.
"""

from collections.abc import Callable

import numpy as np

from properties.assertions import assert_identical, assert_rounding_only
from properties.cache_machine import seeded_model
from properties.claims import claim
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.attention import labels
from properties.inputs.parameters import Call, dyadic
from properties.verdicts import record

D, H, VOCAB = 4, 2, 5
MODEL = seeded_model(7, D, 6, source_vocab=VOCAB, vocab=VOCAB, layers=2)
ENCODER, DECODER = MODEL["encoder"][0], MODEL["decoder"][0]
WORDS = dyadic(3, (2, 3, D))
MEMORY = dyadic(4, (2, 5, D))
IDS = np.arange(6).reshape(2, 3) % VOCAB

NO_SENTENCE, NO_WORD, NO_KEY = WORDS[:0], WORDS[:, :0], MEMORY[:, :0]
CALLS: dict[str, list[Call]] = {
    "softmax": [Call((np.zeros(shape),), {}) for shape in ((0, 3), (2, 0), (2, 0, 3), (0, 0))],
    "attention": [
        Call((dyadic(5, (b, h, n, d_k)), dyadic(6, (b, h, m, d_k)), labels(b, h, m, d_v), mask), {})
        for b, h, n, m, d_k, d_v in ((2, 3, 0, 4, 6, 5), (2, 3, 4, 0, 6, 5), (0, 2, 3, 4, 6, 5), (2, 3, 4, 1, 6, 0))
        for mask in (None, np.ones((n, m), dtype=bool), np.ones((b, 1, 1, m), dtype=bool))
    ],
    "multi_head": [Call(args, {"h": H, **ENCODER["self_attention"]}) for args in ((NO_SENTENCE, MEMORY[:0]), (WORDS, NO_KEY))],
    "layer_norm": [Call((X,), ENCODER["norm_1"]) for X in (NO_SENTENCE, NO_WORD)],
    "residual_norm": [Call((X, X), ENCODER["norm_1"]) for X in (NO_SENTENCE, NO_WORD)],
    "feed_forward": [Call((X,), ENCODER["feed_forward"]) for X in (NO_SENTENCE, NO_WORD)],
    "encoder_layer": [Call((NO_SENTENCE,), {"layer": ENCODER, "h": H})],
    "decoder_layer": [Call(args, {"layer": DECODER, "h": H}) for args in ((NO_SENTENCE, MEMORY[:0]), (WORDS, NO_KEY))],
    "output_projection": [Call((X,), {"W": MODEL["W_out"], "b": MODEL["b_out"]}) for X in (NO_SENTENCE, NO_WORD)],
    "embedding": [Call((ids,), {"table": MODEL["source_embedding"]}) for ids in (IDS[:0], IDS[:, :0])],
    "transformer": [Call((IDS[:0], IDS[:0]), {"parameters": MODEL, "h": H})],
}


def nothing_in(identifier: str, step: str) -> Callable[..., None]:
    """The property that `step` answers questions about nothing rightly, or not at all."""

    def test(impl: Impl) -> None:
        for call in CALLS[step]:
            if impl.refuses(step, *call.args, **call.kwargs):
                record.refused()
                continue
            got, exact = impl.call(step, *call.args, **call.kwargs), oracle(step, *call.args, **call.kwargs)
            assert_identical(
                np.array(got.shape), np.array(exact.shape), f"shape of the answer to {[np.shape(X) for X in call.args]}"
            )
            assert_rounding_only(impl, step, got, *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_{step}_of_nothing"
    test.__doc__ = f"{step} of no sequences, no tokens or no keys is empty, or what is declared for a fully masked row."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


test_softmax_of_nothing = nothing_in("A5", "softmax")
test_attention_of_nothing = nothing_in("A2", "attention")
test_multi_head_of_nothing = nothing_in("H3", "multi_head")
test_layer_norm_of_nothing = nothing_in("R2", "layer_norm")
test_residual_norm_of_nothing = nothing_in("R1", "residual_norm")
test_feed_forward_of_nothing = nothing_in("F1", "feed_forward")
test_encoder_layer_of_nothing = nothing_in("L1", "encoder_layer")
test_decoder_layer_of_nothing = nothing_in("L3", "decoder_layer")
test_output_projection_of_nothing = nothing_in("O1", "output_projection")
test_embedding_of_nothing = nothing_in("E2", "embedding")
test_transformer_of_nothing = nothing_in("T3", "transformer")
