"""Generation: take the likeliest next word, append it, go round again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_greedy, assert_identical, chosen, taught
from properties.claims import claim
from properties.inputs.parameters import SEEDS, generation_calls


@claim("G1", needs="generation")
@given(generation_calls())
def test_every_word_written_is_the_likeliest(subject, call):
    """Greedy: each word has the largest logit after the words before it; the oracle's words, where the lead exceeds rounding."""
    assert_greedy(subject, call, subject.generation(*call.args, **call.kwargs))


@claim("G1", needs=("generation", "transformer"))
@given(generation_calls())
def test_writing_equals_being_taught_what_was_written(subject, call):
    """With its cache or without, the implementation writes the words its own transformer scores highest, given what it wrote."""
    written = subject.generation(*call.args, **call.kwargs)
    teaching = taught(call, written)

    logits = subject.transformer(*teaching.args, **teaching.kwargs)

    assert_greedy(subject, call, written, logits)


@claim("G1", needs="generation")
@given(generation_calls())
def test_a_row_stops_at_its_own_end_word(subject, call):
    """After a row's end word nothing but the end word follows; rows that have not ended go on; every word is in the dictionary."""
    end, vocab = call.kwargs["end"], len(call.kwargs["parameters"]["target_embedding"])

    written = subject.generation(*call.args, **call.kwargs)

    after_the_end = ~chosen(call, written)
    assert_identical(written[after_the_end], np.full(after_the_end.sum(), end), "words after the end")
    assert_at_most(written.max(), vocab - 1, "largest word id")
    assert_at_most(-written.min(), 0, "−smallest word id")
    assert_greedy(subject, call, written)


@claim("G1", needs="generation")
@given(generation_calls())
def test_a_row_ends_where_its_own_first_word_says(subject, call):
    """With the first row's first word for the end word that row is finished at once, and the others are written as before."""
    first = subject.generation(*call.args, **call.kwargs)
    ending = call.but(end=int(first[0, 0]))

    written = subject.generation(*ending.args, **ending.kwargs)

    assert_greedy(subject, ending, written)
    after_the_end = ~chosen(ending, written)
    assert_identical(written[after_the_end], np.full(after_the_end.sum(), ending.kwargs["end"]), "words after the end")


@claim("T3", needs="generation")
@given(generation_calls())
def test_a_sentence_is_continued_alike_alone_and_in_company(subject, call):
    """Each source alone is continued by likeliest words too: no row waits for, or borrows from, another."""
    source, source_real = call.args

    alone = [
        subject.generation(source[i : i + 1], None if source_real is None else source_real[i : i + 1], **call.kwargs)
        for i in range(len(source))
    ]

    assert_greedy(subject, call, np.concatenate(alone))


@claim("T3", needs="generation")
@given(generation_calls(), st.integers(1, 3), SEEDS)
def test_words_that_fill_up_the_source_are_not_read(subject, call, more, seed):
    """A source filled up with other words that are not real is continued as the source itself; which words they are is all one."""
    source, source_real = call.args
    b, m = source.shape
    rng = np.random.default_rng(seed)
    vocab = len(call.kwargs["parameters"]["source_embedding"])
    real = np.ones((b, m), dtype=bool) if source_real is None else source_real
    filled_real = np.concatenate([real, np.zeros((b, more), dtype=bool)], axis=1)

    first, second = (
        subject.generation(np.concatenate([source, rng.integers(0, vocab, (b, more))], axis=1), filled_real, **call.kwargs)
        for _ in range(2)
    )

    assert_identical(second, first, "words written after the filling changed")
    assert_greedy(subject, call, first)
