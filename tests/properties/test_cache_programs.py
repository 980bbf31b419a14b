"""Shorter programs are programs: each can be played, whatever was left out of it."""

from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from properties.counterexample.cache_programs import Branch, Played, followed, shorter, without
from properties.implementations.cached import play
from properties.implementations.recomputed import Recomputed

VOCAB, SOURCE_VOCAB, ROWS = 5, 4, 3


def logits(source, tokens, real):
    """Numbers for each token a row has read, which tell its source and its tokens apart."""
    return np.cumsum(tokens, axis=1)[..., None] + np.where(real, source, 9).sum(axis=1)[:, None, None] * np.ones(VOCAB)


def played_on_a_cache(played):
    """The results of a program, and the branches that the model says it leaves."""
    cache = partial(Recomputed, logits)
    results = play(cache, played.source, played.real, program=played.program)["results"]
    branches = [Branch.unread(played.source, played.real, VOCAB)]
    for operation, (answered, length) in zip(played.program, results, strict=True):
        answered = None if answered is None else answered.reshape(len(answered), -1, VOCAB)  # noqa: PLW2901
        branches = followed(branches, operation, answered)
        assert length == branches[operation[0]].length
    return branches


@st.composite
def programs(draw):
    """Up to eight operations of every kind, of which each can be done."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shapes, program = [[3, [0, 0]]], []  # width of the source, and what each row has read
    names = ["prefill", "step", "prefill_some", "rollback", "reorder", "leave", "join", "reset", "copy", "request"]
    for name in draw(st.lists(st.sampled_from(names), max_size=8)):
        which = int(rng.integers(len(shapes)))
        m, lengths = shapes[which]
        b = len(lengths)
        new = rng.integers(0, SOURCE_VOCAB, (1, m)), np.ones((1, m), dtype=bool)
        match name:
            case "prefill":
                operands, shapes[which] = [rng.integers(0, VOCAB, (b, 2))], [m, [n + 2 for n in lengths]]
            case "step":
                operands, shapes[which] = [rng.integers(0, VOCAB, b)], [m, [n + 1 for n in lengths]]
            case "prefill_some":
                operands = [rng.integers(0, VOCAB, (b, 2)), np.append(rng.integers(0, 3, b - 1), 1)]
                shapes[which] = [m, [int(n + count) for n, count in zip(lengths, operands[1], strict=True)]]
            case "rollback" if max(lengths):
                operands, shapes[which] = [max(lengths) - 1], [m, [min(n, max(lengths) - 1) for n in lengths]]
            case "reorder":
                operands = [rng.integers(0, b, b)]
                shapes[which] = [m, [lengths[r] for r in operands[0]]]
            case "leave" if b > 1:
                operands, shapes[which] = [np.array([b - 1])], [m, lengths[:-1]]
            case "join" if len(set(lengths)) == 1:
                operands, shapes[which] = [*new, rng.integers(0, VOCAB, (1, lengths[0]))], [m, [*lengths, lengths[0]]]
            case "reset":
                operands, shapes[which] = list(new), [m, [0]]
            case "request":
                operands = list(new)
                shapes.append([m, [0]])
            case "copy":
                operands = []
                shapes.append([m, lengths])
            case _:
                continue
        program.append([which, name, *operands])
    return Played(rng.integers(0, SOURCE_VOCAB, (2, 3)), np.ones((2, 3), dtype=bool), program)


@settings(max_examples=60)
@given(programs())
def test_every_shorter_program_can_be_played(played):
    """Rows, tokens and branches fit, and what the model says a cache has read is what the cache says; each is smaller."""
    played_on_a_cache(played)

    def amount(program):
        return len(program), sum(np.size(each) for operation in program for each in operation[2:])

    for fewer in shorter(played, SOURCE_VOCAB, VOCAB):
        played_on_a_cache(fewer)
        assert amount(fewer.program) < amount(played.program) or len(fewer.source) < len(played.source)


@settings(max_examples=60)
@given(programs())
def test_the_branches_followed_have_read_what_the_cache_has(played):
    """A token more in every branch is answered for the source and the tokens that the model says it holds."""
    for which, branch in enumerate(played_on_a_cache(played)):
        step = [which, "step", np.ones(len(branch.tokens), dtype=np.int64)]

        asked = play(partial(Recomputed, logits), played.source, played.real, program=[*played.program, step])["results"][-1][0]

        read = branch.reading(np.ones((len(branch.tokens), 1), dtype=np.int64), None)
        places = np.arange(len(read.tokens)), read.lengths - 1
        np.testing.assert_array_equal(asked, logits(read.source, read.tokens, read.real)[places])


def test_what_was_done_to_a_copy_is_done_to_the_original():
    """Without the copy that made branch 1, branch 1 is branch 0, and the copy after it is branch 1."""
    program = [[0, "copy"], [1, "copy"], [1, "step"], [2, "step"], [0, "step"]]

    assert without(program, 0) == [[0, "copy"], [0, "step"], [1, "step"], [0, "step"]]
    assert without(program, 1) == [[0, "copy"], [1, "step"], [1, "step"], [0, "step"]]
    assert without(program, 4) == program[:4]


def test_what_was_done_to_a_second_request_is_done_to_the_first():
    """Without the request that made branch 1, branch 1 is branch 0, and the request after it is branch 1."""
    program = [[0, "request"], [0, "request"], [1, "step"], [2, "step"]]

    assert without(program, 0) == [[0, "request"], [0, "step"], [1, "step"]]
    assert without(program, 1) == [[0, "request"], [1, "step"], [0, "step"]]


def test_operations_are_fitted_to_what_is_left():
    """Without the tokens that it would forget a rollback is left out too."""
    tokens = np.zeros((2, 1), dtype=np.int64)
    played = Played(np.zeros((2, 3), dtype=np.int64), None, [[0, "prefill", tokens], [0, "rollback", 0], [0, "prefill", tokens]])

    fewer = list(shorter(played, SOURCE_VOCAB, VOCAB))

    assert any([operation[1] for operation in each.program] == ["prefill"] for each in fewer)
