"""The encoder: self-attention and feed-forward, each with add & norm, layer upon layer."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.cache_machine import seeded_model
from properties.claims import claim
from properties.implementations.oracle import oracle
from properties.inputs.parameters import SEEDS, Call, dyadic, encoder_calls, encoder_layer_calls, huge, masks

FILLED = Call(
    (dyadic(5, (2, 3, 4), 2.0), np.array([[True, True, True], [True, True, False]])[:, None, None]),
    {"layers": seeded_model(11, 4, 6, source_vocab=2, vocab=2, layers=2)["encoder"], "final_norm": None, "h": 2},
)
"""What is most usual: two layers of two heads, sequences of two lengths."""


@claim("L1", needs="encoder_layer")
@given(encoder_layer_calls())
def test_encoder_layer_agrees_with_the_oracle(impl, call):
    """Attention, add & norm, feed-forward, add & norm, in this order (or norms first): rounding is the only difference."""
    got = impl.encoder_layer(*call.args, **call.kwargs)

    assert_rounding_only(impl, "encoder_layer", got, *call.args, **call.kwargs)


@claim("L2", needs="encoder")
@given(encoder_calls())
def test_encoder_agrees_with_the_oracle(impl, call):
    """N layers in a row, each reading what the one before wrote, and the final norm if there is one."""
    got = impl.encoder(*call.args, **call.kwargs)

    assert_rounding_only(impl, "encoder", got, *call.args, **call.kwargs)


@claim("L2", needs="encoder")
@given(encoder_calls(padded=True))
def test_real_tokens_among_padding_are_encoded_as_the_oracle_does(impl, call):
    """Where some tokens only fill up the length, the others are judged; what becomes of the filling is another property's."""
    (X, mask), filling = call.args, ~call.args[1][:, 0, 0, :, None]
    got = impl.encoder(X, mask, **call.kwargs)

    judged = np.where(filling, oracle("encoder", X, mask, **call.kwargs), got)
    assert_rounding_only(impl, "encoder", judged, X, mask, **call.kwargs)


@claim("T3", needs="encoder")
@example(FILLED, True)
@given(encoder_calls(padded=True), st.booleans())
def test_fully_masked_padding_tokens_influence_nobody(impl, call, usual):
    """The mask written as a square, in which padding tokens is fully masked: whatever becomes of them, the others are judged."""
    (X, columns), filling = call.args, ~call.args[1][:, 0, 0, :, None]
    square = columns & columns.swapaxes(-1, -2)
    if usual:  # what most models choose has code of its own in some libraries
        call = call.but(h=2 if X.shape[-1] % 2 == 0 else 1, norm="post", activation="relu")
    got = impl.encoder(X, square, **call.kwargs)

    judged = np.where(filling, oracle("encoder", X, square, **call.kwargs), got)
    assert_rounding_only(impl, "encoder", judged, X, square, **call.kwargs)


@claim("L2", needs="encoder")
@given(encoder_calls(), st.integers(1, 2))
def test_padding_tokens_are_encoded_as_the_oracle_does(impl, call, filling):
    """Nobody looks at the last tokens, yet they look: their rows follow from the tokens that count like all rows."""
    (X, _), d_model = call.args, call.args[0].shape[-1]
    X = np.concatenate([X, X[:, :1].repeat(filling, axis=1)], axis=1)
    mask = (np.arange(X.shape[1]) < X.shape[1] - filling).reshape(1, 1, 1, -1).repeat(len(X), axis=0)
    choices = {"h": 2 if d_model % 2 == 0 else 1, "norm": "post", "activation": "relu"}

    got = impl.encoder(X, mask, **call.but(**choices).kwargs)

    assert_rounding_only(impl, "encoder", got, X, mask, **call.but(**choices).kwargs)


@claim("L2", needs=("encoder", "encoder_layer"))
@given(encoder_layer_calls())
def test_an_encoder_of_one_layer_is_that_layer(impl, call):
    """A stack of one, without a final norm, is judged as the layer it holds."""
    layer_alone = {name: value for name, value in call.kwargs.items() if name != "layer"}

    got = impl.encoder(*call.args, layers=[call.kwargs["layer"]], **layer_alone)

    assert_rounding_only(impl, "encoder_layer", got, *call.args, **call.kwargs)


@claim("L1", needs="encoder_layer")
@given(st.data(), encoder_layer_calls(masked=False), SEEDS)
def test_masked_tokens_do_not_influence_an_encoder_layer(impl, data, call, seed):
    """Padding tokens hidden from all others can hold anything finite: the tokens that count stay bit-identical."""
    X, _ = call.args
    b, n, _ = X.shape
    mask = data.draw(masks((b, 1, 1, n)))
    hidden = ~mask[:, 0, 0]
    junk = np.where(hidden[..., None], dyadic(2 + seed, X.shape, huge(impl.dtype)), X)

    before, after = (impl.encoder_layer(tokens, mask, **call.kwargs) for tokens in (X, junk))

    assert_identical(after[~hidden], before[~hidden], "tokens that count, after the padding tokens changed")


@claim("L1", needs="encoder_layer")
@given(encoder_layer_calls(masked=False), st.integers(0, 4), SEEDS)
def test_every_token_influences_every_other_as_the_oracle_predicts(impl, call, i, seed):
    """Without a mask all tokens see a changed token: both answers are judged, one after the other, by the same implementation."""
    X, _ = call.args
    changed = X.copy()
    changed[:, i % X.shape[1]] = dyadic(2 + seed, X[:, 0].shape, 2.0)

    for tokens in (X, changed):
        got = impl.encoder_layer(tokens, **call.kwargs)
        assert_rounding_only(impl, "encoder_layer", got, tokens, **call.kwargs)


@claim("L1", needs="encoder_layer")
@given(encoder_layer_calls(masked=False), SEEDS)
def test_without_positions_a_layer_has_no_order(impl, call, seed):
    """Tokens in another order come out in that order."""
    X, _ = call.args
    order = np.random.default_rng(seed).permutation(X.shape[1])

    got = impl.encoder_layer(X[:, order], **call.kwargs)

    assert_rounding_only(impl, "encoder_layer", got[:, np.argsort(order)], X, **call.kwargs)


@claim("T3", needs="encoder_layer")
@given(encoder_layer_calls(masked=False))
def test_encoding_one_sequence_equals_its_row_of_the_batch(impl, call):
    """Each sequence of a batch, run alone, is judged as the same sequence; the batch in reverse order comes out reversed."""
    X, _ = call.args

    backwards = impl.encoder_layer(np.flip(X, 0).copy(), **call.kwargs)
    assert_rounding_only(impl, "encoder_layer", backwards[::-1], X, **call.kwargs)
    alone = [impl.encoder_layer(X[i : i + 1], **call.kwargs) for i in range(len(X))]
    assert_rounding_only(impl, "encoder_layer", np.concatenate(alone), X, **call.kwargs)
