"""The K/V cache: whatever is done to it, it answers what the whole model would, recomputed from the tokens of each row."""

from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import reduce
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from hypothesis.stateful import get_state_machine_test

from properties.cache_machine import TURNS, WRONG, CacheMachine, CacheOf, seeded_model, showing
from properties.claims import claim
from properties.counterexample.cache_programs import BRANCHING, Played, Program, fitted, followed

SEED, VOCAB = 11, 6
SOURCE = np.array([[1, 5, 2, 6], [4, 0, 3, 3], [2, 2, 6, 1]])  # three sequences that agree in no place
REAL = np.array([[True, True, True, True], [True, True, False, True], [True, True, True, False]])
WORDS = np.array([[1, 4], [2, 0], [5, 3]])
OPERANDS = {
    "prefill": (WORDS[:, ::-1],),
    "step": (WORDS[:, 0],),
    "prefill_some": (WORDS[:, ::-1], np.array([2, 0, 1])),
    "rollback": (1,),
    "reorder": (np.array([2, 0, 1]),),
    "leave": (np.array([0]),),
    "join": (SOURCE[1:2, ::-1], REAL[1:2], WORDS[1:2, ::-1]),
    "reset": (SOURCE[:2, 1:], REAL[:2, 1:]),
    "copy": (),
    "request": (SOURCE[[1, 2, 0]], REAL[[1, 2, 0]]),
}
"""Of each operation, for three rows that have read two tokens; fitted to the rows that there are."""

RULES = 6  # the most rules one example has, the start among them

MACHINE: ContextVar[CacheMachine] = ContextVar("machine")  # Hypothesis makes the machine, and hands it nothing

playing = get_state_machine_test(MACHINE.get, settings=settings(stateful_step_count=RULES))


@claim("G1", needs="kv_cache", shrinks=True)
@given(data=st.data())
def test_a_cache_answers_as_the_whole_model(impl, data):
    """Prompts in chunks, steps, rollback, rows that reorder, leave and join, copies, reuse, a second request: never noticed."""
    MACHINE.set(machine := CacheMachine(impl))
    try:
        playing.hypothesis.inner_test(data)  # drawn from this property's data, so from its seed
    except WRONG as broken:
        machine.cache.can_be_told_shorter(broken, machine.source, machine.real)
        raise


@claim("G1", needs="kv_cache", shrinks=True)
def test_every_two_operations_on_a_cache(impl):
    """Each operation behind each other one, where every row has tokens of its own: all branches read on as the whole model does."""
    model = seeded_model(SEED, 4, 6, source_vocab=7, vocab=VOCAB, layers=2)
    cache = CacheOf(impl, {"parameters": {**model, "encoder": model["encoder"][:1]}, "h": 2})
    offered = ("prefill", "step", "request", *cache.played(SOURCE, REAL, [])["operations"])
    try:
        for program in (each for pair in product(offered, repeat=2) for each in programs(*pair)):
            with suppress(UnsatisfiedAssumption):  # it does not take this program, and that was counted
                assert_reads_on(cache, program)
    except WRONG as broken:
        cache.can_be_told_shorter(broken, SOURCE, REAL)
        raise


def programs(first: str, second: str) -> Iterator[Program]:
    """Two operations behind a prompt; the second in each branch that the first leaves."""
    for which in (0, 1) if first in BRANCHING else (0,):
        program = [[0, "prefill", WORDS], [0, first, *OPERANDS[first]], [which, second, *OPERANDS[second]]]
        yield fitted(Played(SOURCE, REAL, program)).program


def assert_reads_on(cache: CacheOf, program: Program) -> None:
    """After the program two tokens more in every branch, turn by turn, are answered as they must be."""
    planned = reduce(lambda branches, operation: followed(branches, operation, None), program, cache.unread(SOURCE, REAL))
    rows = [np.arange(len(branch.tokens)) for branch in planned]
    more = [[which, "step", (rows[which] + which + turn) % VOCAB] for turn in range(TURNS) for which in range(len(planned))]
    for which, branch in enumerate(cache.after(SOURCE, REAL, [*program, *more]), start=1):
        with showing([*program, *more][: len(program) + len(more) - len(planned) + which]):  # as far as this branch's last token
            cache.answers_are_the_whole_models(branch)
