"""Sizes that small examples do not have: the article's own, more than that on every axis, and lengths at the edges of blocks.

Examples are drawn small, so that many are seen and a failure is short. What is right only up to 16 tokens, 64 features or 8 heads,
for ids that fit into a byte or in a buffer of 128 places would get through all of them, and fail on the article's own example.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.assertions import assert_greedy, assert_identical, assert_rounding_only
from properties.cache_machine import CacheOf, seeded_model
from properties.claims import claim
from properties.implementations.conventions import causal
from properties.implementations.impl import Impl
from properties.inputs.attention import labels
from properties.inputs.parameters import Call, Nested, dyadic

WORDS, D_MODEL, H, D_FF, VOCAB = 16, 512, 8, 2048, 10_000  # of the article
MANY = 17  # sequences, heads or layers: more than anybody unrolls
LONG = 130  # tokens: more than a block of 128
EDGES = (8, 16, 32, 64, 128, 256, 512)  # of blocks and pages
HEADS = (32, 64, 80, 96, 128, 256)  # widths that kernels are made for
TINY, SEED = 4, 11  # features, where tokens, sequences, heads or layers are what is many


def at_the_edges(up_to: int) -> list[int]:
    """The lengths of a whole number of blocks, and one token more or less."""
    return [edge + k for edge in EDGES if edge <= up_to for k in (-1, 0, 1)]


@cache
def model(d_model: int, d_ff: int, vocab: int, layers: int) -> Nested:
    """A model of these sizes; its numbers come from one seed. Of many features each weighs less, or float16 would overflow."""
    made = seeded_model(SEED, d_model, d_ff, source_vocab=vocab, vocab=vocab, layers=layers)
    return _divided(made, 8.0) if d_model > MANY else made


def article() -> Nested:
    """One layer a side of the article's size; its vocabulary is asked of the steps that look into it."""
    return model(D_MODEL, D_FF, 1000, 1)


def _divided(nested: Nested, by: float) -> Nested:
    if isinstance(nested, dict):
        return {name: part if "norm" in name else _divided(part, by) for name, part in nested.items()}
    return [_divided(part, by) for part in nested] if isinstance(nested, list) else nested / by


def some(*shape: int) -> np.ndarray:
    """Features, other for each shape."""
    return dyadic(SEED + sum(shape), shape)


def ids(vocab: int, *shape: int) -> np.ndarray:
    """Tokens of a vocabulary, the last one among them."""
    tokens = np.random.default_rng(SEED).integers(0, vocab, shape)
    tokens.flat[-1] = vocab - 1
    return tokens


def seen(*shape: int) -> np.ndarray:
    """A mask of this shape: each row sees the first token, and about half of the others."""
    mask = np.random.default_rng(SEED + sum(shape)).random(shape) < 0.5
    mask[..., 0] = True
    return mask


# ---- the calls of each step, made when they are needed: the article's weights are many ----

SHAPES = ((1, WORDS, D_MODEL), (MANY, LONG, TINY), (1, 2, 4099))  # of features


def _softmax() -> Iterator[Call]:
    yield from (Call((8 * some(*shape),), {}) for shape in ((H, WORDS, WORDS), (MANY, LONG, 3), (2, 1030), (2, 5003)))


def _attention() -> Iterator[Call]:
    many = (1, 1, LONG, 1030, 4, 3), (1, 1, 2, 5003, 2, 2), (1, 1, 2050, 3, 2, 2), (MANY, MANY, 2, 3, 2, 2)
    for b, h, n, m, d_k, d_v in ((1, H, WORDS, WORDS, 64, 64), *many, *((1, 1, 3, 5, d, d) for d in HEADS)):
        yield Call((some(b, h, n, d_k), some(b, h, m, d_k), some(b, h, m, d_v), None), {})


def _multi_head() -> Iterator[Call]:
    large, tiny = (each["encoder"][0]["self_attention"] for each in (article(), model(32, 6, 7, 1)))
    yield Call((some(1, WORDS, D_MODEL), some(2, WORDS, D_MODEL)[1:]), {"h": H, **large})
    yield Call((some(1, 3, 32), some(1, 5, 32)), {"h": 16, **tiny})
    yield Call((some(MANY, 2, 32), some(MANY, 3, 32)), {"h": 2, **tiny})
    yield from (Call((some(1, n, 32), some(1, n + 1, 32)), {"h": 2, **tiny}) for n in at_the_edges(128))


def _layer_norm() -> Iterator[Call]:
    yield from (Call((some(*shape),), {"gain": some(shape[-1]), "bias": some(shape[-1])}) for shape in SHAPES)


def _residual_norm() -> Iterator[Call]:
    for call in _layer_norm():
        yield Call((call.args[0], some(*call.args[0].shape)[::-1].copy()), call.kwargs)


def _feed_forward() -> Iterator[Call]:
    yield Call((some(1, WORDS, D_MODEL),), article()["encoder"][0]["feed_forward"])
    yield Call((some(1, 2, TINY),), model(TINY, 4099, 7, 1)["encoder"][0]["feed_forward"])
    yield Call((some(MANY, LONG, TINY),), model(TINY, 6, 7, 1)["encoder"][0]["feed_forward"])


def _encoder_layer() -> Iterator[Call]:
    tiny = model(TINY, 6, 7, 1)["encoder"][0]
    yield Call((some(1, WORDS, D_MODEL), None), {"layer": article()["encoder"][0], "h": H})
    yield from (
        Call((some(b, n, TINY), None), {"layer": tiny, "h": 2}) for b, n in [(MANY, 3), *((1, n) for n in at_the_edges(128))]
    )
    yield from (Call((some(2, n, TINY), seen(2, 1, rows, n)), {"layer": tiny, "h": 2}) for n, rows in ((33, 33), (40, 1)))


def _decoder_layer() -> Iterator[Call]:
    large, tiny = (each["decoder"][0] for each in (article(), model(TINY, 6, 7, 1)))
    yield Call((some(1, WORDS, D_MODEL), some(2, WORDS, D_MODEL)[1:], None, None), {"layer": large, "h": H})
    for b, n in [(MANY, 3), *((1, n) for n in at_the_edges(128))]:
        yield Call((some(b, n, TINY), some(b, n + 1, TINY), None, None), {"layer": tiny, "h": 2})
    for n, m, rows, memory_rows in ((20, 50, 20, 1), (50, 20, 1, 50)):  # the causal rule, and two masks of other lengths besides
        masks = seen(2, 1, rows, n), seen(2, 1, memory_rows, m)
        yield Call((some(2, n, TINY), some(2, m, TINY), *masks), {"layer": tiny, "h": 2})


def _encoder() -> Iterator[Call]:
    yield Call((some(1, 3, TINY), None), {"layers": model(TINY, 6, 7, MANY)["encoder"], "h": 2})


def _decoder() -> Iterator[Call]:
    yield Call((some(1, 3, TINY), some(1, 5, TINY), None, None), {"layers": model(TINY, 6, 7, MANY)["decoder"], "h": 2})


def _output_projection() -> Iterator[Call]:
    for (b, n, d), vocab in (((1, WORDS, D_MODEL), VOCAB), ((1, 2, TINY), 70_001), ((MANY, LONG, TINY), 5)):
        yield Call((some(b, n, d),), {"W": some(d, vocab), "b": some(vocab)})


def _embedding() -> Iterator[Call]:
    for shape, vocab, d in (((1, WORDS), VOCAB, D_MODEL), ((MANY, LONG), 70_001, TINY)):
        yield Call((ids(vocab, *shape),), {"table": some(vocab, d)})


def _positional_encoding() -> Iterator[Call]:
    yield from (Call(size, {}) for size in ((WORDS, D_MODEL), (10_001, 8), (3, 2050)))


def _transformer() -> Iterator[Call]:
    yield Call((ids(1000, 1, WORDS), ids(1000, 1, WORDS)), {"parameters": article(), "h": H})
    yield Call((ids(7, 1, 5), ids(7, 1, 4)), {"parameters": model(TINY, 6, 7, MANY), "h": 2})
    tiny = {"parameters": model(TINY, 6, 7, 1), "h": 2}
    yield from (Call((ids(7, b, n + 1), ids(7, b, n)), tiny) for b, n in [(MANY, 3), *((1, n) for n in at_the_edges(128))])
    yield Call((ids(7, 2, 50), ids(7, 2, 20), seen(2, 50), seen(2, 20)), tiny)


def at_every_size(identifier: str, step: str, calls: Callable[[], Iterable[Call]]) -> Callable[..., None]:
    """The property that `step` answers large questions within the budget."""

    def test(impl: Impl) -> None:
        for call in calls():
            with suppress(UnsatisfiedAssumption):  # it does not take such arguments, and that was counted
                assert_rounding_only(impl, step, impl.call(step, *call.args, **call.kwargs), *call.args, **call.kwargs)

    test.__name__ = test.__qualname__ = f"test_{step}_at_every_size"
    test.__doc__ = f"{step} at the article's size, at more on every axis, and at the edges of blocks: rounding alone."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


test_softmax_at_every_size = at_every_size("A5", "softmax", _softmax)
test_attention_at_every_size = at_every_size("A6", "attention", _attention)
test_multi_head_at_every_size = at_every_size("H3", "multi_head", _multi_head)
test_layer_norm_at_every_size = at_every_size("R2", "layer_norm", _layer_norm)
test_residual_norm_at_every_size = at_every_size("R1", "residual_norm", _residual_norm)
test_feed_forward_at_every_size = at_every_size("F2", "feed_forward", _feed_forward)
test_encoder_layer_at_every_size = at_every_size("L1", "encoder_layer", _encoder_layer)
test_encoder_at_every_size = at_every_size("L1", "encoder", _encoder)
test_decoder_layer_at_every_size = at_every_size("L3", "decoder_layer", _decoder_layer)
test_decoder_at_every_size = at_every_size("L3", "decoder", _decoder)
test_output_projection_at_every_size = at_every_size("O1", "output_projection", _output_projection)
test_next_token_at_every_size = at_every_size("O1", "next_token", _output_projection)
test_embedding_at_every_size = at_every_size("E1", "embedding", _embedding)
test_positional_encoding_at_every_size = at_every_size("PE1", "positional_encoding", _positional_encoding)
test_transformer_at_every_size = at_every_size("T1", "transformer", _transformer)


@claim("H1", needs=("split_heads", "concat_heads"))
def test_many_heads_are_split_and_joined(impl):
    """The article's 8 heads of 64, and 32 heads of a long batch: whatever is split comes back as it was."""
    for X, h in ((some(1, WORDS, D_MODEL), H), (some(MANY, LONG, 64), 32)):
        heads = impl.split_heads(X, h)

        assert_identical(heads, np.stack(np.split(X, h, axis=-1), axis=1), "heads")
        assert_identical(impl.concat_heads(heads), X, "heads side by side again")


@claim("M1", needs="mask")
def test_the_mask_of_a_long_sequence_is_lower_triangular(impl):
    """1025 tokens, and more keys than queries."""
    for n, m in ((1025, 1025), (3, 2050), *((n, n) for n in at_the_edges(512))):
        assert_identical(impl.mask(n, m), causal(n, m, impl.conventions), f"mask of {n}×{m}")


@claim("A2", needs="attention")
def test_every_key_is_read_by_the_query_that_points_at_it(impl):
    """At every edge of a block, with a causal mask and without: query i is the direction of key i and reads its label, bit for bit.

    A key is written in ±1, ten digits of its number. No two agree in all, so 2^11 of a direction leave exp(−1024) to the next one,
    which is 0 in every dtype.
    """
    digits = np.arange(16)
    for m in at_the_edges(512):
        K = np.where(digits < 10, np.where(np.arange(m)[:, None] >> digits & 1, 1.0, -1.0), 0.0)[None, None]
        V = labels(1, 1, m, 2)
        for mask in (None, np.tri(m, dtype=bool)):
            with suppress(UnsatisfiedAssumption):
                assert_identical(impl.attention(K * 2.0**11, K, V, mask), V, f"labels of {m} keys")


@claim("G1", needs="generation")
def test_long_generation_is_greedy(impl):
    """66 tokens for two sources of 131, and 20 for 17 of 35, none of which ends: every token is the likeliest."""
    parameters = model(TINY, 6, 7, 1)
    never = {**parameters, "b_out": np.where(np.arange(7) == 6, -64.0, parameters["b_out"])}
    for sources, tokens, length in ((2, LONG + 1, 66), (MANY, 35, 20)):
        call = Call((ids(7, sources, tokens), None), {"parameters": never, "h": 2, "bos": 1, "eos": 6, "length": length})
        with suppress(UnsatisfiedAssumption):
            assert_greedy(impl, call, impl.generation(*call.args, **call.kwargs))


@claim("G1", needs="kv_cache")
def test_a_cache_holds_a_long_sequence(impl):
    """Tokens are read up to an edge of a page, over it, and forgotten back to it: the cache is never noticed."""
    source = ids(7, 2, 5)
    cache = CacheOf(impl, {"parameters": model(TINY, 6, 7, 1), "h": 2})
    can_forget = "rollback" in cache.played(source, None, [])["operations"]
    token = [0, "step", ids(7, 2)]
    for edge in (16, 32, 64, 128):
        cache.judge(source, None, [[0, "prefill", ids(7, 2, edge)], token, token])
        if can_forget:
            cache.judge(source, None, [[0, "prefill", ids(7, 2, edge - 1)], token, token, [0, "rollback", edge], token])
            cache.judge(source, None, [[0, "prefill", ids(7, 2, edge + 17)], [0, "rollback", edge], token, token])
