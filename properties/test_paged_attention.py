"""Paged attention: where the keys of a sequence lie in memory is nobody's business but the block table's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.domain import drawn_inside
from properties.inputs.attention import farthest
from properties.inputs.parameters import SEEDS, Call, dyadic
from properties.inputs.sequences import PAGES, in_pages, out_of_pages, paged_calls, scattered
from properties.verdicts import ImplementationError


@claim("Y4", needs="paged_attention")
@given(paged_calls())
def test_paged_attention_agrees_with_the_oracle(impl, call):
    """Rows of different lengths, at the edge of a page, of none; NaN in every slot and page that nobody wrote to."""
    assert_rounding_only(impl, "paged_attention", impl.paged_attention(*call.args, **call.kwargs), *call.args, **call.kwargs)


@claim("Y4", needs="paged_attention")
@given(paged_calls(empty=False))
def test_paged_attention_is_attention_on_the_gathered_keys(impl, call):
    """Each row is judged as plain attention, causal at the end of its own keys and values laid one after another."""
    Q, *pages = call.args
    table, lengths = call.kwargs["block_table"], call.kwargs["lengths"]
    got = impl.paged_attention(*call.args, **call.kwargs)

    for r, (K, V) in enumerate(zip(*(out_of_pages(X, table, lengths) for X in pages), strict=True)):
        n, m = Q.shape[2], K.shape[1]
        assert_rounding_only(impl, "attention", got[r : r + 1], Q[r : r + 1], K[None], V[None], np.tri(n, m, m - n, dtype=bool))


@claim("Y4", needs="paged_attention")
@given(paged_calls(), SEEDS, st.sampled_from(("huge", "zeros", "another")))
def test_pages_in_another_place_and_what_nobody_wrote_move_no_bit(impl, call, seed, kind):
    """Physical pages permuted with their table give the same bits, and so do other numbers in slots and pages of nobody."""
    Q, *pages = call.args
    table, lengths = call.kwargs["block_table"], call.kwargs["lengths"]
    order = np.random.default_rng(seed).permutation(len(pages[0]))
    elsewhere = np.argsort(order)[table]
    gap = {"huge": farthest(impl.dtype), "zeros": 0.0, "another": 1.0}[kind]

    before = impl.paged_attention(*call.args, **call.kwargs)
    moved = impl.paged_attention(Q, *(X[order] for X in pages), block_table=elsewhere, lengths=lengths)
    filled = impl.paged_attention(Q, *(np.where(np.isnan(X), gap, X) for X in pages), **call.kwargs)

    assert_identical(moved, before, "attention over the same pages in another order")
    assert_identical(filled, before, f"attention with {kind} in place of NaN where nobody wrote")


@claim("Y4", needs="paged_attention")
@given(paged_calls(), st.sampled_from(PAGES), SEEDS)
def test_pages_of_another_size_change_nothing(impl, call, page, seed):
    """The same keys and values in pages of another size, and each row by itself, are judged as before."""
    Q, *pages = call.args
    table, lengths = call.kwargs["block_table"], call.kwargs["lengths"]
    page = drawn_inside(page=page)["page"]
    other = scattered(lengths, page, 0, seed)
    gathered = [out_of_pages(X, table, lengths) for X in pages]
    m = max(int(lengths.max()), 1)
    padded = [np.stack([np.pad(X, ((0, 0), (0, m - X.shape[1]), (0, 0))) for X in each]) for each in gathered]
    p = int(other.max()) + 1

    got = impl.paged_attention(Q, *(in_pages(X, lengths, other, p, page) for X in padded), block_table=other, lengths=lengths)
    rows = [
        impl.paged_attention(Q[r : r + 1], *pages, block_table=table[r : r + 1], lengths=lengths[r : r + 1]) for r in range(len(Q))
    ]

    assert_rounding_only(impl, "paged_attention", got, *call.args, **call.kwargs)
    assert_rounding_only(impl, "paged_attention", np.concatenate(rows), *call.args, **call.kwargs)


@claim("Y4", needs="paged_attention")
@given(paged_calls(empty=False))
def test_queries_one_by_one_are_queries_at_once(impl, call):
    """Decoding token by token, with lengths that grow by one, is judged as all n queries at once; later keys hold what they may."""
    Q, *pages = call.args
    n, lengths = Q.shape[2], call.kwargs["lengths"]

    one_by_one = [
        impl.paged_attention(Q[:, :, i : i + 1], *pages, block_table=call.kwargs["block_table"], lengths=lengths - (n - 1 - i))
        for i in range(n)
    ]

    assert_rounding_only(impl, "paged_attention", np.concatenate(one_by_one, axis=2), *call.args, **call.kwargs)


@claim("Y4", needs="paged_attention")
@given(paged_calls(empty=False), SEEDS)
def test_a_shared_page_is_a_page_of_each(impl, call, seed):
    """Two rows that share all their pages, as after a common prompt, get what they get with pages of their own, bit for bit."""
    Q, *pages = call.args
    table, lengths = call.kwargs["block_table"][:1], call.kwargs["lengths"][:1]
    both = np.concatenate([Q[:1], dyadic(2 + seed, Q[:1].shape, 2.0)])
    p = len(pages[0])

    shared = impl.paged_attention(both, *pages, block_table=np.repeat(table, 2, axis=0), lengths=np.repeat(lengths, 2))
    own = impl.paged_attention(
        both,
        *(np.concatenate([X, X]) for X in pages),
        block_table=np.concatenate([table, table + p]),
        lengths=np.repeat(lengths, 2),
    )

    assert_identical(shared, own, "rows that share their pages")


# Y5: impossible tables and lengths ------------------------------------------------------------------------------------

IMPOSSIBLE = ("beyond the last page", "negative page", "longer than its pages", "negative length")


def corrupted(call: Call, kind: str) -> Call:
    """The call with a block table or a length of its last row that there are no pages for."""
    table, lengths = call.kwargs["block_table"].copy(), call.kwargs["lengths"].copy()
    p, page = call.args[1].shape[:2]
    match kind:
        case "beyond the last page":
            table[-1, (lengths[-1] - 1) // page] = p
        case "negative page":
            table[-1, (lengths[-1] - 1) // page] = -1
        case "longer than its pages":
            lengths[-1] = table.shape[1] * page + 1
        case _:
            lengths[-1] = -1
    return call.but(block_table=table, lengths=lengths)


@claim("Y5", needs="paged_attention")
@given(paged_calls(empty=False), st.sampled_from(IMPOSSIBLE))
def test_impossible_block_tables_and_lengths_are_refused(impl, call, kind):
    """A page that there is none of, −1 too, or a length without pages: no answer is right, so it raises.

    Where `corrupt_indices = unchecked` it may return anything. Either way the next good call is answered as ever.
    """
    wrong = corrupted(call, kind)
    before = impl.paged_attention(*call.args, **call.kwargs)

    refused = impl.refuses("paged_attention", *wrong.args, **wrong.kwargs)

    if impl.conventions.corrupt_indices == "refused":
        assert_identical(np.array(refused), np.array(True), f"refusal of a table or length, {kind}")
    assert_identical(impl.paged_attention(*call.args, **call.kwargs), before, "the answer to a good call afterwards")


@claim("Y5", needs="paged_attention")
@given(paged_calls(), st.sampled_from((-1, 2**20)))
def test_entries_behind_a_sequence_are_refused_or_not_read(impl, call, entry):
    """Entries of the block table that no position of the row uses may hold any number: it raises, or not a bit is another."""
    table, lengths = call.kwargs["block_table"], call.kwargs["lengths"]
    page = call.args[1].shape[1]
    used = np.arange(table.shape[1]) < -(-lengths[:, None] // page)
    other = np.append(np.where(used, table, entry), np.full((len(table), 1), entry), axis=1)
    before = impl.paged_attention(*call.args, **call.kwargs)
    try:
        got = impl.attempt("paged_attention", *call.args, block_table=other, lengths=lengths)
    except ImplementationError as refusal:
        if not getattr(refusal, "raised", False):
            raise
        got = impl.paged_attention(*call.args, **call.kwargs)
    assert_identical(got, before, f"attention with {entry} where the block table is not used, or after it was refused")
