"""Embedding: each token becomes a row of features, the same one wherever it stands."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.inputs.attention import embeddings
from properties.inputs.parameters import SEEDS, dyadic

ROOTED = (1, 4, 16, 64)  # widths whose root is a power of two, so that √d_model · x needs no rounding


@claim("E1", needs="embedding")
@given(embeddings(), st.booleans())
def test_embedding_agrees_with_the_oracle(impl, call, scale):
    """A row of d_model features for each token, scaled or not, differs from the oracle by rounding alone."""
    got = impl.embedding(*call.args, **call.kwargs, scale=scale)

    assert_rounding_only(impl, "embedding", got, *call.args, **call.kwargs, scale=scale)


@claim("E1", needs="embedding")
@given(embeddings(), st.booleans())
def test_a_token_outside_of_the_vocabulary_is_handled_as_declared(impl, call, below):
    """An id below 0 or beyond the last row is refused, or −1 is the last row, or some row is returned; no other row notices."""
    (tokens,), table = call.args, call.kwargs["table"]
    outside = tokens.copy()
    outside[-1, -1] = -1 if below else len(table)
    choice = impl.conventions.out_of_range_token

    refused = impl.refuses("embedding", outside, table=table)

    if choice == "refused" or (choice == "wraps" and not below):
        assert_identical(np.array(refused), np.array(True), f"refusal of token {outside[-1, -1]} of {len(table)}")
        return
    if choice == "wraps" or not refused:
        meant = tokens.copy()
        meant[-1, -1] = len(table) - 1
        got, expected = impl.embedding(outside, table=table), impl.embedding(meant, table=table)
        same = np.ones(tokens.shape, dtype=bool)
        same[-1, -1] = choice == "wraps"
        assert_identical(got[same], expected[same], f"rows beside, and the row of, token {outside[-1, -1]}")


@claim("E2", needs="embedding")
@given(embeddings(repeat=True), SEEDS)
def test_embedding_ignores_position(impl, call, seed):
    """Tokens in another order give their rows in that order, and a token that is repeated gives one row twice, bit for bit."""
    (tokens,), table = call.args, call.kwargs["table"]
    order = np.random.default_rng(seed).permutation(tokens.shape[1])

    got = impl.embedding(tokens, table=table)

    assert_identical(got[:, -1], got[:, 0], "row of a repeated token")
    assert_identical(impl.embedding(tokens[:, order], table=table), got[:, order], "rows of reordered tokens")


@claim("E2", needs="embedding")
@given(embeddings(repeat=True), SEEDS)
def test_embedding_reads_only_the_tokens_own_row(impl, call, seed):
    """New meanings for all other tokens leave a token's rows bit-identical; a new meaning for itself shows in each of them."""
    (tokens,), table = call.args, call.kwargs["table"]
    token = tokens[0, 0]
    others, own = table.copy(), table.copy()
    others[np.arange(len(table)) != token] = dyadic(2 + seed, table.shape)[np.arange(len(table)) != token]
    own[token] += 1.0

    before, without, within = (impl.embedding(tokens, table=values, scale=False) for values in (table, others, own))

    assert_identical(without[tokens == token], before[tokens == token], "rows of a token after other tokens changed")
    assert_identical(
        within[tokens == token], np.repeat(own[None, token], (tokens == token).sum(), axis=0), "rows of a token that changed"
    )
    assert_identical(within[tokens != token], before[tokens != token], "rows of the tokens that did not change")


@claim("E4", needs="embedding")
@given(embeddings(widths=ROOTED))
def test_embedding_scale_is_sqrt_d_model_by_default(impl, call):
    """Where √d_model is a power of two the row comes out as exactly √d_model times the table's; switched off, as the table's."""
    (tokens,), table = call.args, call.kwargs["table"]
    scaled = table[tokens] * np.sqrt(table.shape[1])

    assert_identical(impl.embedding(tokens, table=table), scaled, "embedding unless said otherwise")
    assert_identical(impl.embedding(tokens, table=table, scale=True), scaled, "embedding with scale=True")
    assert_identical(impl.embedding(tokens, table=table, scale=False), table[tokens], "embedding with scale=False")


@claim("E4", needs="embedding")
@given(embeddings())
def test_the_factor_is_the_same_for_every_feature(impl, call):
    """Where √d_model is irrational, each entry is √d_model times the table's, to rounding."""
    got = impl.embedding(*call.args, **call.kwargs)

    assert_rounding_only(impl, "embedding", got, *call.args, **call.kwargs, scale=True)
