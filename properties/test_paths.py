"""One path of an implementation against another: with a cache or without, in chunks or at once, alone or in company.

Each path is held to the same answer, the oracle's. Options are combined in a covering array, so that every two of them meet. The
train and eval paths of torch's modules, and SDPA with its weights unseen, are implementations of their own (see the registry).
"""

from functools import cache
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_rounding_only
from properties.cache_machine import cache_starts, seeded_model
from properties.claims import claim
from properties.implementations.layouts import LAYOUTS, REFILLED
from properties.inputs.attention import attention_calls
from properties.inputs.pairwise import pairwise
from properties.inputs.parameters import ACTIVATIONS, NORMS, SEEDS, Call, encoder_layer_calls, multi_head_calls

OPTIONS: dict[str, tuple[Any, ...]] = {
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "scale_embedding": (True, False),
    "h": (1, 2),
    "tied": (False, True),
    "biases": ("all", "none", "of the output alone"),
    "final_norms": (True, False),
    "filled_up": (False, True),
    "layers": (1, 2),
    "layout": (None, *sorted(LAYOUTS), REFILLED),
}
"""What a whole model can be asked for, and in which memory layout; every pair of values is tried together."""

BIASES = ("b_Q", "b_K", "b_V", "b_O")


@cache
def choices_of_all() -> list[dict[str, Any]]:
    """Values of all options, in which every two meet; found once, when first needed."""
    return pairwise(OPTIONS)


def combined(choice: dict[str, Any], seed: int) -> Call:
    """The call of `transformer` that these options ask for."""
    rng = np.random.default_rng(seed)
    parameters = seeded_model(seed, 4, 6, source_vocab=5, vocab=7, layers=choice["layers"])
    for layer in (*parameters["encoder"], *parameters["decoder"]):
        for name in ("self_attention", "cross_attention"):
            if choice["biases"] != "all" and name in layer:
                gone = BIASES if choice["biases"] == "none" else BIASES[:-1]
                layer[name] = layer[name] | dict.fromkeys(gone)
    if choice["tied"]:
        parameters["W_out"] = None
    if not choice["final_norms"]:
        parameters["encoder_norm"] = parameters["decoder_norm"] = None
    source, target = rng.integers(0, 5, (2, 4)), rng.integers(0, 7, (2, 3))
    real = (np.array([[True] * 4, [True, True, False, False]]), np.array([[True, True, False], [True] * 3]))
    asked = {name: choice[name] for name in ("norm", "activation", "scale_embedding", "h")}
    return Call((source, target, *(real if choice["filled_up"] else ())), {"parameters": parameters, **asked})


@claim("T1", needs="transformer")
def test_options_are_right_together(impl):
    """Every two options of norm, activation, scale, heads, biases, tying, filling, depth and layout meet: rounding alone."""
    for seed, choice in enumerate(choices_of_all()):
        call = combined(choice, seed)

        got = impl.reading(choice["layout"]).transformer(*call.args, **call.kwargs)

        assert_rounding_only(impl, "transformer", got, *call.args, **call.kwargs)


@claim("G1", needs="kv_cache")
@given(cache_starts(), st.lists(st.integers(1, 3), min_size=1, max_size=3), SEEDS)
def test_chunked_prefill_equals_prefill_at_once(impl, start, chunks, seed):
    """Read at once, in any chunks, or token by token, a prompt is scored alike at every token of it."""
    source, real = start.args
    vocab = len(start.kwargs["parameters"]["target_embedding"])
    tokens = np.random.default_rng(seed).integers(0, vocab, (len(source), sum(chunks)))
    parts = np.split(tokens, np.cumsum(chunks)[:-1], axis=1)
    programs = [
        [[0, "prefill", tokens]],
        [[0, "prefill", part] for part in parts],
        [[0, "step", tokens[:, i]] for i in range(tokens.shape[1])],
    ]

    for program in programs:
        results = impl.kv_cache(source, real, program=program, **start.kwargs)["results"]
        logits = np.concatenate([rows.reshape(len(source), -1, vocab) for rows, _ in results], axis=1)
        assert_rounding_only(impl, "transformer", logits, source, tokens, real, **start.kwargs)


@claim("G1", needs=("kv_cache", "transformer"))
@given(cache_starts(), st.integers(1, 4), SEEDS)
def test_a_cache_leaves_the_model_as_it_was(impl, start, k, seed):
    """The whole model answers alike before a cache of it has been used and after: nothing of the cache is left in it."""
    source, real = start.args
    vocab = len(start.kwargs["parameters"]["target_embedding"])
    tokens, others = np.random.default_rng(seed).integers(0, vocab, (2, len(source), k))

    for _ in range(2):
        got = impl.transformer(source, tokens, real, **start.kwargs)
        assert_rounding_only(impl, "transformer", got, source, tokens, real, **start.kwargs)
        impl.kv_cache(source, real, program=[[0, "prefill", others]], **start.kwargs)


@claim("A6", needs="attention")
@given(attention_calls())
def test_attention_is_batch_invariant(impl, call):
    """Each sequence and head asked by itself, as a batch of one, is judged as in the batch."""
    Q, K, V, mask = call.args
    b, h, n, m = *Q.shape[:3], K.shape[2]
    full = None if mask is None else np.broadcast_to(mask, (b, h, n, m)).copy()

    got = np.empty((*Q.shape[:3], V.shape[-1]))
    for i in range(b):
        for j in range(h):
            one = (slice(i, i + 1), slice(j, j + 1))
            got[one] = impl.attention(Q[one], K[one], V[one], None if full is None else full[one])

    assert_rounding_only(impl, "attention", got, *call.args)


@claim("H3", needs="multi_head")
@given(multi_head_calls(masked=False))
def test_multi_head_is_batch_invariant(impl, call):
    """Each sequence of a batch by itself."""
    X, M, _ = call.args

    got = np.concatenate([impl.multi_head(X[i : i + 1], M[i : i + 1], None, **call.kwargs) for i in range(len(X))])

    assert_rounding_only(impl, "multi_head", got, *call.args, **call.kwargs)


@claim("L1", needs="encoder_layer")
@given(encoder_layer_calls(masked=False))
def test_an_encoder_layer_is_batch_invariant(impl, call):
    """Each sequence of a batch by itself."""
    X = call.args[0]

    got = np.concatenate([impl.encoder_layer(X[i : i + 1], None, **call.kwargs) for i in range(len(X))])

    assert_rounding_only(impl, "encoder_layer", got, *call.args, **call.kwargs)
