"""The decoder: masked self-attention, cross-attention over the encoder's output, feed-forward, each with add & norm."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.inputs.parameters import (
    SEEDS,
    Call,
    choices,
    decoder_calls,
    decoder_layer_calls,
    decoder_layer_weights,
    dyadic,
    features,
    huge,
    masks,
    sizes,
    transformer_calls,
)


@claim("L3", needs="decoder_layer")
@given(decoder_layer_calls())
def test_decoder_layer_agrees_with_the_oracle(impl, call):
    """Three sublayers, each with its add & norm, under the causal mask and any further one: rounding is the only difference."""
    got = impl.decoder_layer(*call.args, **call.kwargs)

    assert_rounding_only(impl, "decoder_layer", got, *call.args, **call.kwargs)


@claim("C3", needs="decoder")
@given(decoder_calls())
def test_decoder_agrees_with_the_oracle(impl, call):
    """N layers in a row that all read the same memory, and the final norm if there is one."""
    got = impl.decoder(*call.args, **call.kwargs)

    assert_rounding_only(impl, "decoder", got, *call.args, **call.kwargs)


@claim("L3", needs=("decoder", "decoder_layer"))
@given(decoder_layer_calls())
def test_a_decoder_of_one_layer_is_that_layer(impl, call):
    """A stack of one, without a final norm, is judged as the layer it holds."""
    layer_alone = {name: value for name, value in call.kwargs.items() if name != "layer"}

    got = impl.decoder(*call.args, layers=[call.kwargs["layer"]], **layer_alone)

    assert_rounding_only(impl, "decoder_layer", got, *call.args, **call.kwargs)


@claim("M3", needs="decoder_layer")
@given(decoder_layer_calls(), st.integers(0, 4), SEEDS)
def test_future_tokens_do_not_influence_a_decoder_layer(impl, call, i, seed):
    """Whatever finite numbers stand behind token i, tokens 0 … i come out bit-identical; masks on top of it or not."""
    X, *others = call.args
    i %= X.shape[1]
    junk = X.copy()
    junk[:, i + 1 :] = dyadic(2 + seed, X[:, i + 1 :].shape, huge(impl.dtype))

    before, after = (impl.decoder_layer(tokens, *others, **call.kwargs) for tokens in (X, junk))

    assert_identical(after[:, : i + 1], before[:, : i + 1], f"tokens up to {i}, after later ones changed")


@claim("L3", needs="decoder_layer")
@given(decoder_layer_calls(), SEEDS)
def test_past_tokens_influence_a_decoder_layer_as_the_oracle_predicts(impl, call, seed):
    """The first token is everybody's past: changed, it changes the answer, and the new answer is judged like the old one."""
    X, *others = call.args
    changed = X.copy()
    changed[:, 0] = dyadic(2 + seed, X[:, 0].shape, 2.0)

    for tokens in (X, changed):
        got = impl.decoder_layer(tokens, *others, **call.kwargs)
        assert_rounding_only(impl, "decoder_layer", got, tokens, *others, **call.kwargs)


@claim("C1", needs="decoder_layer")
@given(decoder_layer_calls(), SEEDS)
def test_the_memory_gives_keys_and_values_of_any_length(impl, call, seed):
    """The output has the decoder's n rows however long the memory is, and follows when the memory becomes another one."""
    X, M, mask, _ = call.args
    b, m, d_model = M.shape

    for memory in (dyadic(2 + seed, (b, m + 2, d_model), 2.0), M[:, :1]):
        got = impl.decoder_layer(X, memory, mask, **call.kwargs)
        assert_rounding_only(impl, "decoder_layer", got, X, memory, mask, **call.kwargs)


@claim("C2", needs="decoder_layer")
@given(decoder_layer_calls(), SEEDS)
def test_a_decoder_layer_reads_the_memory_as_a_set(impl, call, seed):
    """Reordering the memory's tokens, with the columns of their mask, changes nothing but rounding."""
    X, M, mask, memory_mask = call.args
    order = np.random.default_rng(seed).permutation(M.shape[1])
    memory_mask = None if memory_mask is None else memory_mask[..., order]

    got = impl.decoder_layer(X, M[:, order], mask, memory_mask, **call.kwargs)

    assert_rounding_only(impl, "decoder_layer", got, *call.args, **call.kwargs)


@claim("C2", needs="decoder_layer")
@given(st.data(), decoder_layer_calls(), SEEDS)
def test_masked_memory_tokens_do_not_influence_a_decoder_layer(impl, data, call, seed):
    """Whatever finite numbers stand in a word of the memory that is hidden, the answer is the same to the last bit."""
    X, M, mask, _ = call.args
    b, m, _ = M.shape
    memory_mask = data.draw(masks((b, 1, 1, m)))
    hidden = ~memory_mask[:, 0, 0, :, None]
    junk = np.where(hidden, dyadic(2 + seed, M.shape, huge(impl.dtype)), M)

    before, after = (impl.decoder_layer(X, memory, mask, memory_mask, **call.kwargs) for memory in (M, junk))

    assert_identical(after, before, "output after hidden tokens of the memory changed")


@st.composite
def calls_where_one_layer_reads(draw: st.DrawFn) -> tuple[Call, int]:
    """Two decoder layers of which only the one drawn listens to the memory: the other's cross-attention answers 0."""
    b, n, m, h, d_model, d_ff = draw(sizes(most_tokens=4, most_sequences=2))
    layers = [draw(decoder_layer_weights(d_model, d_ff)) for _ in range(2)]
    reader = draw(st.integers(0, 1))
    deaf = layers[1 - reader]["cross_attention"]
    layers[1 - reader]["cross_attention"] = {**deaf, "W_O": np.zeros((d_model, d_model)), "b_O": None}
    X, M = draw(features(b, n, d_model)), draw(features(b, m, d_model))
    return Call((X, M), {"layers": layers, **draw(choices(h))}), reader


@claim("C3", needs="decoder")
@given(calls_where_one_layer_reads(), SEEDS)
def test_every_layer_reads_the_final_memory_itself(impl, drawn, seed):
    """Whichever layer listens, it follows a change of the memory as the oracle predicts: no layer reads another's tokens for it."""
    call, _reader = drawn
    X, M = call.args

    for memory in (M, dyadic(2 + seed, M.shape, 2.0)):
        got = impl.decoder(X, memory, **call.kwargs)
        assert_rounding_only(impl, "decoder", got, X, memory, **call.kwargs)


@claim("D1", needs="transformer")
@given(transformer_calls(padded=False, tied=False), SEEDS)
def test_the_target_has_a_table_of_its_own(impl, call, seed):
    """Other meanings for tokens the source does not use, or for target tokens not written, change no bit of the answer."""
    source, target, *_ = call.args
    parameters = dict(call.kwargs["parameters"])
    for name, tokens in (("source_embedding", source), ("target_embedding", target)):
        table = parameters[name].copy()
        absent = np.setdiff1d(np.arange(len(table)), tokens)
        table[absent] = dyadic(2 + seed, table[absent].shape, 2.0)
        parameters[name] = table

    before = impl.transformer(source, target, **call.kwargs)
    after = impl.transformer(source, target, **call.but(parameters=parameters).kwargs)

    assert_identical(after, before, "logits after tokens that do not occur changed their meaning")


@claim("D1", needs="transformer")
@given(transformer_calls(padded=False, tied=False), SEEDS)
def test_the_target_is_embedded_by_the_same_rule(impl, call, seed):
    """New meanings for the target's tokens move the logits as the oracle predicts, √d_model and positions included."""
    parameters = dict(call.kwargs["parameters"])
    parameters["target_embedding"] = dyadic(2 + seed, parameters["target_embedding"].shape)
    changed = call.but(parameters=parameters)

    got = impl.transformer(*changed.args, **changed.kwargs)

    assert_rounding_only(impl, "transformer", got, *changed.args, **changed.kwargs)
