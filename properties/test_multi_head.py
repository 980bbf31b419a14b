"""Many heads: the features cut into slices, an attention of its own for each, and one matrix that mixes what they found."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.oracle import oracle
from properties.inputs.parameters import BIASES, SEEDS, Call, dyadic, features, huge, masks, multi_head_calls, sizes

NO_BIAS = dict.fromkeys(BIASES)


def columns(h: int, d_model: int, i: int) -> slice:
    """The columns of head i."""
    d_k = d_model // h
    return slice(d_k * i, d_k * (i + 1))


def with_output_matrix(call: Call, W_O: np.ndarray) -> Call:
    """The same call with another W_O and no b_O: with the identity, the heads side by side as they are."""
    return call.but(W_O=W_O, b_O=None)


@st.composite
def exact_calls(draw: st.DrawFn) -> Call:
    """Small integers, and masks that leave each token of each head one token to look at: every sum is exact in every dtype."""
    b, n, m, h, d_model, _ = draw(sizes())
    rng = np.random.default_rng(draw(SEEDS))

    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-1, 2, shape).astype(np.float64)

    only = rng.integers(0, m, (b, h, n, 1)) == np.arange(m)
    weights = {f"W_{name}": whole(d_model, d_model) for name in "QKVO"} | {name: whole(d_model) for name in BIASES}
    return Call((whole(b, n, d_model), whole(b, m, d_model), only), {"h": h, **weights})


@st.composite
def matrices_in_heads(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """A matrix and a number of heads that divides its features."""
    b, n, _, h, d_model, _ = draw(sizes())
    return draw(features(b, n, d_model)), h


@claim("H1", needs=("split_heads", "concat_heads"))
@given(matrices_in_heads())
def test_split_and_concatenate_round_trip(impl, drawn):
    """Cutting the features into heads and putting them side by side again changes no bit."""
    X, h = drawn

    assert_identical(impl.concat_heads(impl.split_heads(X, h)), X, "concat_heads(split_heads(X, h))")


@claim("H1", needs="split_heads")
@given(matrices_in_heads())
def test_head_i_is_its_own_slice_of_columns(impl, drawn):
    """Head i holds columns d_k·i … d_k·(i+1) − 1 of its own batch row, bit for bit."""
    X, h = drawn
    heads = impl.split_heads(X, h)

    for i in range(h):
        assert_identical(heads[:, i], X[..., columns(h, X.shape[-1], i)], f"head {i} of {h}")


@claim("H1", needs="concat_heads")
@given(matrices_in_heads())
def test_concatenated_heads_stand_in_order(impl, drawn):
    """Given each head's slice, concatenating puts head 0 first."""
    X, h = drawn
    heads = np.stack([X[..., columns(h, X.shape[-1], i)] for i in range(h)], axis=1)

    assert_identical(impl.concat_heads(heads), X, "concat_heads(heads)")


@claim("H3", needs="multi_head")
@given(multi_head_calls())
def test_heads_agree_with_the_oracle(impl, call):
    """Projections, heads, concatenation and W_O together differ from the oracle by rounding alone, under any mask."""
    got = impl.multi_head(*call.args, **call.kwargs)

    assert_rounding_only(impl, "multi_head", got, *call.args, **call.kwargs)


@claim("H3", needs="multi_head")
@given(exact_calls())
def test_a_single_attended_token_passes_its_values_on_exactly(impl, call):
    """Where a token of a head sees one token, its weight is 1, and (M W_V + b_V) W_O + b_O in small integers has no rounding."""
    got = impl.multi_head(*call.args, **call.kwargs)

    assert_identical(got, oracle("multi_head", *call.args, **call.kwargs), "multi_head on small integers")


@claim("H3", needs="multi_head")
@given(multi_head_calls())
def test_the_output_matrix_mixes_the_heads(impl, call):
    """With W_O = 0 nothing of the heads is left: the output is b_O in every row."""
    b_O = dyadic(7, call.kwargs["W_O"].shape[1:])
    silent = call.but(W_O=np.zeros_like(call.kwargs["W_O"]), b_O=b_O)

    got = impl.multi_head(*silent.args, **silent.kwargs)

    assert_identical(got, np.broadcast_to(b_O, got.shape), "multi_head with W_O = 0")


@claim("H2", needs="multi_head")
@given(multi_head_calls(), st.integers(0, 3), SEEDS)
def test_a_heads_weights_change_that_heads_columns_alone(impl, call, i, seed):
    """Before the output matrix, new W_Q, W_K, W_V and biases for head i leave every other head's columns bit-identical."""
    h, d_model = call.kwargs["h"], call.args[0].shape[-1]
    i, own = i % h, columns(h, d_model, i % h)
    before = with_output_matrix(call, np.eye(d_model))
    others = {}
    for name in ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V"):
        weights = call.kwargs[name]
        if weights is not None:
            others[name] = weights.copy()
            others[name][..., own] = dyadic(2 + seed, weights[..., own].shape)
    after = before.but(**others)

    first, second = impl.multi_head(*before.args, **before.kwargs), impl.multi_head(*after.args, **after.kwargs)

    for j in set(range(h)) - {i}:
        other = columns(h, d_model, j)
        assert_identical(second[..., other], first[..., other], f"columns of head {j} after a change of head {i}")
    assert_rounding_only(impl, "multi_head", second, *after.args, **after.kwargs)


@claim("H4", needs="multi_head")
@given(multi_head_calls(), SEEDS)
def test_one_head_is_plain_attention_and_an_output_matrix(impl, call, seed):
    """h = 1 without projections is attention itself; W_O then reorders its features, as the permutation drawn here says."""
    X, M, mask = call.args
    d_model = X.shape[-1]
    order = np.random.default_rng(seed).permutation(d_model)
    eye = np.eye(d_model)
    mask = None if mask is None else mask if mask.ndim == 2 else mask[:, :1]

    got = impl.multi_head(X, M, mask, h=1, W_Q=eye, W_K=eye, W_V=eye, W_O=eye[:, order], **NO_BIAS)

    before_order = got[..., np.argsort(order)]
    assert_rounding_only(impl, "attention", before_order[:, None], X[:, None], M[:, None], M[:, None], mask)


@claim("H5", needs="multi_head")
@given(multi_head_calls(masked=False), SEEDS)
def test_block_diagonal_weights_are_the_articles_small_matrices_per_slice(impl, call, seed):
    """Cutting the features first, with a small W_Q, W_K, W_V for each slice, is multi-head attention with block-diagonal ones."""
    X, M, _ = call.args
    h, d_model = call.kwargs["h"], X.shape[-1]
    d_k = d_model // h
    small = {name: dyadic(2 + seed + k, (h, d_k, d_k)) for k, name in enumerate(("W_Q", "W_K", "W_V"))}
    large = {name: np.zeros((d_model, d_model)) for name in small}
    for name, i in [(name, i) for name in small for i in range(h)]:
        own = columns(h, d_model, i)
        large[name][own, own] = small[name][i]

    got = impl.multi_head(X, M, h=h, **large, W_O=np.eye(d_model), **NO_BIAS)

    for i in range(h):
        own = columns(h, d_model, i)
        slices = {name: blocks[i] for name, blocks in small.items()}
        slice_alone = {"h": 1, **slices, "W_O": np.eye(d_k), **NO_BIAS}
        assert_rounding_only(impl, "multi_head", got[..., own], X[..., own], M[..., own], **slice_alone)


@claim("H5", needs="multi_head")
@given(exact_calls(), st.integers(0, 3), st.integers(0, 11))
def test_the_papers_heads_each_see_every_feature(impl, call, i, feature):
    """With full W_V any feature of a token moves the columns of any head, by what W_V says; with block-diagonal W_V it cannot."""
    X, M, only = call.args
    h, d_model = call.kwargs["h"], X.shape[-1]
    feature, own = feature % d_model, columns(h, d_model, i % h)
    seen = call.but(W_V=np.ones((d_model, d_model)), W_O=np.eye(d_model), b_O=None)
    moved = M.copy()
    moved[..., feature] += 1.0

    before = impl.multi_head(*seen.args, **seen.kwargs)
    after = impl.multi_head(X, moved, only, **seen.kwargs)

    assert_identical(after[..., own] - before[..., own], np.ones_like(before[..., own]), f"change of head {i % h}")

    blocks = np.kron(np.eye(h), np.ones((d_model // h, d_model // h)))
    sliced = seen.but(W_V=blocks, W_Q=np.eye(d_model), W_K=np.eye(d_model), b_Q=None, b_K=None)
    change = impl.multi_head(X, moved, only, **sliced.kwargs) - impl.multi_head(*sliced.args, **sliced.kwargs)
    expected = np.broadcast_to(blocks[feature], change.shape)
    assert_identical(change, expected, f"change by feature {feature} under block-diagonal weights")


@claim("H6", needs="multi_head")
@given(multi_head_calls(), SEEDS)
def test_the_order_of_the_heads_means_nothing(impl, call, seed):
    """Heads reordered together with W_O's row blocks (and with their masks) give the same output, to rounding."""
    X, M, mask = call.args
    h, d_model = call.kwargs["h"], X.shape[-1]
    heads = np.random.default_rng(seed).permutation(h)
    order = np.concatenate([np.arange(d_model)[columns(h, d_model, i)] for i in heads])
    reordered = {name: call.kwargs[name] for name in ("h", "b_O")} | {"W_O": call.kwargs["W_O"][order]}
    for name in ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V"):
        weights = call.kwargs[name]
        reordered[name] = None if weights is None else weights[..., order]
    per_head = mask is not None and mask.ndim == 4 and mask.shape[1] == h

    got = impl.multi_head(X, M, mask[:, heads] if per_head else mask, **reordered)

    assert_rounding_only(impl, "multi_head", got, *call.args, **call.kwargs)


@claim("C1", needs="multi_head")
@given(multi_head_calls(masked=False), SEEDS)
def test_queries_give_the_rows_and_memory_gives_the_content(impl, call, seed):
    """The output has X's rows whatever M's length is, and follows when M is another one of another length."""
    X, M, _ = call.args
    longer = np.concatenate([M, dyadic(2 + seed, M.shape, 2.0), M[:, :1]], axis=1)

    for memory in (M, longer):
        got = impl.multi_head(X, memory, **call.kwargs)
        assert_rounding_only(impl, "multi_head", got, X, memory, **call.kwargs)


@claim("C2", needs="multi_head")
@given(multi_head_calls(), SEEDS)
def test_memory_is_read_as_a_set(impl, call, seed):
    """Reordering M's tokens, with the columns of the mask, changes nothing but rounding."""
    X, M, mask = call.args
    order = np.random.default_rng(seed).permutation(M.shape[1])

    got = impl.multi_head(X, M[:, order], None if mask is None else mask[..., order], **call.kwargs)

    assert_rounding_only(impl, "multi_head", got, *call.args, **call.kwargs)


@claim("C2", needs="multi_head")
@given(st.data(), multi_head_calls(masked=False), SEEDS)
def test_masked_memory_tokens_do_not_influence_multi_head(impl, data, call, seed):
    """Whatever finite numbers stand in a word that nobody may attend to, the answer is the same to the last bit."""
    X, M, _ = call.args
    b, m, _ = M.shape
    mask = data.draw(masks((b, 1, 1, m)))
    hidden = np.broadcast_to(~mask[:, 0, 0, :, None], M.shape)
    junk = np.where(hidden, dyadic(2 + seed, M.shape, huge(impl.dtype)), M)

    before = impl.multi_head(X, M, mask, **call.kwargs)

    assert_identical(impl.multi_head(X, junk, mask, **call.kwargs), before, "output after hidden tokens changed")


@claim("H3", needs="multi_head")
@given(multi_head_calls(), st.integers(0, 4), SEEDS)
def test_queries_of_cross_attention_do_not_influence_each_other(impl, call, i, seed):
    """Changing one row of X leaves every other row of the output bit-identical, and moves its own as the oracle predicts."""
    X, M, mask = call.args
    i %= X.shape[1]
    changed = X.copy()
    changed[:, i] = dyadic(2 + seed, X[:, i].shape, 2.0)
    others = np.delete(np.arange(X.shape[1]), i)
    # A sequence that looks at itself, in one of the two calls, may be computed by other code, which rounds in its own way.
    assume(not any(np.array_equal(rows, M) for rows in (X, changed)))

    before, after = (impl.multi_head(rows, M, mask, **call.kwargs) for rows in (X, changed))

    assert_identical(after[:, others], before[:, others], f"rows other than {i}")
    assert_rounding_only(impl, "multi_head", after, changed, M, mask, **call.kwargs)
