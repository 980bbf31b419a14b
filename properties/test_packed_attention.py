"""Packed attention: sequences of any lengths in one array, each of which knows nothing of the others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.claims import claim
from properties.implementations.oracle import oracle
from properties.inputs.attention import farthest
from properties.inputs.parameters import SEEDS, Call, dyadic
from properties.inputs.sequences import as_offered, packed_again, packed_calls, parts
from properties.verdicts import ImplementationError


@claim("Y3", needs="packed_attention")
@given(packed_calls())
def test_packed_attention_agrees_with_the_oracle(impl, call):
    """Each sequence attends to its own keys, of any number: none, one, as many as a block has; causal or not."""
    call = as_offered(call, impl)

    assert_rounding_only(impl, "packed_attention", impl.packed_attention(*call.args, **call.kwargs), *call.args, **call.kwargs)


@claim("Y3", needs="packed_attention")
@given(packed_calls(least=1))
def test_each_packed_sequence_is_attention_by_itself(impl, call):
    """The rows of a sequence are judged as plain attention on its own queries, keys and values: the oracle packs nothing here."""
    call = as_offered(call, impl)
    Q, K, V = call.args
    got = impl.packed_attention(Q, K, V, **call.kwargs)

    for mine, theirs in parts(call):
        q, k, v = (X[place].swapaxes(0, 1)[None] for X, place in ((Q, mine), (K, theirs), (V, theirs)))
        n, m = q.shape[2], k.shape[2]
        offset = m - n if impl.conventions.causal_alignment == "bottom_right" else 0
        mask = np.tri(n, m, offset, dtype=bool) if call.kwargs.get("causal") else None
        seen = np.ones(n, dtype=bool) if mask is None else mask.any(axis=-1)
        shown = None if mask is None else mask[seen]
        assert_rounding_only(impl, "attention", got[mine].swapaxes(0, 1)[None][:, :, seen], q[:, :, seen], k, v, shown)


@claim("Y3", needs="packed_attention")
@given(packed_calls(), SEEDS)
def test_packed_sequences_in_another_order_with_empty_ones_between_give_their_rows(impl, call, seed):
    """Sequences packed in another order, with empty ones among them, are judged as before; and so is each packed alone."""
    call, count = as_offered(call, impl), len(parts(call))
    order = [int(r) for r in np.random.default_rng(seed).permutation(count + 2)]  # two of these numbers are of nobody
    other = packed_again(call, order)

    got = impl.packed_attention(*other.args, **other.kwargs)

    places = [parts(other)[order.index(r)][0] for r in range(count)]
    assert_rounding_only(
        impl, "packed_attention", np.concatenate([got[:0], *(got[place] for place in places)]), *call.args, **call.kwargs
    )
    alone = packed_again(call, [seed % count])
    assert_rounding_only(impl, "packed_attention", impl.packed_attention(*alone.args, **alone.kwargs), *alone.args, **alone.kwargs)


@claim("Y3", needs="packed_attention")
@given(packed_calls(), SEEDS, st.sampled_from(("NaN", "huge", "another")))
def test_what_a_neighbour_holds_moves_no_bit(impl, call, seed, kind):
    """NaN, huge or other numbers in one sequence leave every row of the others bit-identical."""
    call, rng = as_offered(call, impl), np.random.default_rng(seed)
    mine, theirs = parts(call)[seed % len(parts(call))]
    changed = [X.copy() for X in call.args]
    for k, place in enumerate((mine, theirs, theirs)):
        shape = changed[k][place].shape
        other = farthest(impl.dtype) * rng.choice((-1.0, 1.0), shape)
        changed[k][place] = np.nan if kind == "NaN" else other if kind == "huge" else dyadic(2 + seed + k, shape)
    rest = np.ones(len(call.args[0]), dtype=bool)
    rest[mine] = False

    before, after = impl.packed_attention(*call.args, **call.kwargs), impl.packed_attention(*changed, **call.kwargs)

    assert_identical(after[rest], before[rest], "rows of the other sequences")
    assert_rounding_only(impl, "packed_attention", before, *call.args, **call.kwargs)


@claim("Y3", needs=("packed_attention", "packed_attention.causal"))
@given(packed_calls(least=1, same=True, causal=True), SEEDS)
def test_packed_causal_attention_sees_nothing_that_comes_later(impl, call, seed):
    """NaN in keys and values from some place on leaves the queries before it, of the same sequence and others, bit-identical."""
    Q, K, V = call.args
    mine, _ = parts(call)[seed % len(parts(call))]
    first = mine.start + seed % (mine.stop - mine.start)
    K, V = K.copy(), V.copy()
    K[first : mine.stop] = V[first : mine.stop] = np.nan
    rest = np.ones(len(Q), dtype=bool)
    rest[first : mine.stop] = False

    before, after = impl.packed_attention(*call.args, **call.kwargs), impl.packed_attention(Q, K, V, **call.kwargs)

    blocked = impl.conventions.non_finite_behind_mask == "blocked" and impl.conventions.non_finite_masked_key == "blocked"
    rest[mine.start : first] = blocked  # 0·NaN is NaN within a sequence, as it is behind any mask
    assert_identical(after[rest], before[rest], "rows that come before")
    K[first : mine.stop], V[first : mine.stop] = dyadic(2 + seed, K[first : mine.stop].shape), 3.0
    rest[mine.start : first] = True
    assert_identical(impl.packed_attention(Q, K, V, **call.kwargs)[rest], before[rest], "rows before keys that changed")


# Y5: impossible lengths -----------------------------------------------------------------------------------------------

IMPOSSIBLE = ("decreasing", "beyond the end", "below 0", "fewer of keys")
INCOMPLETE = ("not from 0", "not to the end")


def corrupted(call: Call, kind: str, which: str) -> Call:
    """The call with cumulative lengths that no sequences have (IMPOSSIBLE), or that leave rows to nobody (INCOMPLETE)."""
    rows = len(call.args[0] if which == "cu_seqlens_q" else call.args[1])
    lengths = call.kwargs[which].copy()
    match kind:
        case "decreasing":
            lengths = np.insert(lengths, len(lengths) - 1, rows + 1)
            call = call.but(**{name: np.append(call.kwargs[name], call.kwargs[name][-1]) for name in call.kwargs if "cu" in name})
        case "beyond the end":
            lengths[-1] = rows + 1
        case "below 0":
            lengths[0] = -1
        case "fewer of keys":
            lengths = np.append(lengths, rows)
        case "not from 0":
            lengths[0] = 1
        case _:
            lengths[-1] -= 1
    return call.but(**{which: lengths})


@claim("Y5", needs="packed_attention")
@given(packed_calls(least=1), st.sampled_from(IMPOSSIBLE), st.sampled_from(("cu_seqlens_q", "cu_seqlens_k")))
def test_impossible_cumulative_lengths_are_refused(impl, call, kind, which):
    """They decrease, go beyond the end, begin below 0, are of another number of sequences: no answer is right, so it raises.

    Where `corrupt_indices = unchecked` it may return anything. Either way the next good call is answered as ever.
    """
    call = as_offered(call, impl)
    wrong = corrupted(call, kind, which)
    before = impl.packed_attention(*call.args, **call.kwargs)

    refused = impl.refuses("packed_attention", *wrong.args, **wrong.kwargs)

    if impl.conventions.corrupt_indices == "refused":
        assert_identical(np.array(refused), np.array(True), f"refusal of {which} = {wrong.kwargs[which].tolist()}, {kind}")
    assert_identical(impl.packed_attention(*call.args, **call.kwargs), before, "the answer to a good call afterwards")


@claim("Y5", needs="packed_attention")
@given(packed_calls(least=2), st.sampled_from(INCOMPLETE), st.sampled_from(("cu_seqlens_q", "cu_seqlens_k")))
def test_rows_of_no_packed_sequence_are_refused_or_left_out(impl, call, kind, which):
    """Cumulative lengths that begin above 0 or end early: it raises, or the rows of the sequences are those of the sequences."""
    wrong = corrupted(as_offered(call, impl), kind, which)
    try:
        got = impl.attempt("packed_attention", *wrong.args, **wrong.kwargs)
    except ImplementationError as refusal:
        if not getattr(refusal, "raised", False):
            raise
        assert_identical(np.array(impl.refuses("packed_attention", *wrong.args, **wrong.kwargs)), np.array(True), "refusal, again")
        return
    kept = packed_again(wrong, list(range(len(parts(wrong)))))
    rows = np.concatenate([got[mine] for mine, _ in parts(wrong)])
    assert_identical(np.array(rows.shape), np.array(oracle("packed_attention", *kept.args, **kept.kwargs).shape), "shape")
    assert_rounding_only(impl, "packed_attention", rows, *kept.args, **kept.kwargs)
