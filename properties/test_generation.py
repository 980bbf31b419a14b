"""Generation: take the likeliest next token, append it, go round again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_greedy, assert_identical, chosen, taught
from properties.claims import claim
from properties.inputs.parameters import SEEDS, generation_calls


@claim("G1", needs="generation")
@given(generation_calls())
def test_generation_is_greedy(impl, call):
    """Greedy: each token has the largest logit after the tokens before it; the oracle's tokens, where the lead exceeds rounding."""
    assert_greedy(impl, call, impl.generation(*call.args, **call.kwargs))


@claim("G1", needs=("generation", "transformer"))
@given(generation_calls())
def test_generation_agrees_with_teacher_forcing(impl, call):
    """With its cache or without, the implementation writes the tokens its own transformer scores highest, given what it wrote."""
    written = impl.generation(*call.args, **call.kwargs)
    teaching = taught(call, written)

    logits = impl.transformer(*teaching.args, **teaching.kwargs)

    assert_greedy(impl, call, written, logits)


@claim("G1", needs="generation")
@given(generation_calls())
def test_a_row_stops_at_its_own_eos(impl, call):
    """After a row's end token only end tokens follow; rows that have not ended go on; every token is in the vocabulary."""
    eos, vocab = call.kwargs["eos"], len(call.kwargs["parameters"]["target_embedding"])

    written = impl.generation(*call.args, **call.kwargs)

    after_the_end = ~chosen(call, written)
    assert_identical(written[after_the_end], np.full(after_the_end.sum(), eos), "tokens after the end")
    assert_at_most(written.max(), vocab - 1, "largest token id")
    assert_at_most(-written.min(), 0, "−smallest token id")
    assert_greedy(impl, call, written)


@claim("G1", needs="generation")
@given(generation_calls())
def test_a_row_whose_first_token_is_eos_ends_there(impl, call):
    """With the first row's first token for the end token that row is finished at once, and the others are written as before."""
    first = impl.generation(*call.args, **call.kwargs)
    ending = call.but(eos=int(first[0, 0]))

    written = impl.generation(*ending.args, **ending.kwargs)

    assert_greedy(impl, ending, written)
    after_the_end = ~chosen(ending, written)
    assert_identical(written[after_the_end], np.full(after_the_end.sum(), ending.kwargs["eos"]), "tokens after the end")


@claim("T3", needs="generation")
@given(generation_calls())
def test_generation_of_one_sequence_equals_its_row_of_the_batch(impl, call):
    """Each source alone is continued by likeliest tokens too: no row waits for, or borrows from, another."""
    source, source_mask = call.args

    alone = [
        impl.generation(source[i : i + 1], None if source_mask is None else source_mask[i : i + 1], **call.kwargs)
        for i in range(len(source))
    ]

    assert_greedy(impl, call, np.concatenate(alone))


@claim("T3", needs="generation")
@given(generation_calls(), st.integers(1, 3), SEEDS)
def test_padding_tokens_do_not_influence_generation(impl, call, more, seed):
    """Padding of the source changes nothing of what is written, whatever the padding tokens are."""
    source, source_mask = call.args
    b, m = source.shape
    rng = np.random.default_rng(seed)
    vocab = len(call.kwargs["parameters"]["source_embedding"])
    real = np.ones((b, m), dtype=bool) if source_mask is None else source_mask
    filled_real = np.concatenate([real, np.zeros((b, more), dtype=bool)], axis=1)

    first, second = (
        impl.generation(np.concatenate([source, rng.integers(0, vocab, (b, more))], axis=1), filled_real, **call.kwargs)
        for _ in range(2)
    )

    assert_identical(second, first, "tokens written after the filling changed")
    assert_greedy(impl, call, first)
