"""The K/V cache: whatever is done to it, it answers what the whole model would, recomputed from the words of each row."""

from contextvars import ContextVar
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test

from properties.cache_machine import WRONG, CacheMachine
from properties.claims import claim

RULES = 6  # the most rules one example has, the start among them

MACHINE: ContextVar[CacheMachine] = ContextVar("machine")  # Hypothesis makes the machine, and hands it nothing

playing = get_state_machine_test(MACHINE.get, settings=settings(stateful_step_count=RULES))


@claim("G1", needs="kv_cache", shrinks=True)
@given(data=st.data())
def test_a_cache_answers_as_the_whole_model(subject, data):
    """Prompts in chunks, steps, rollback, rows that reorder, leave and join, copies and reuse: the cache is never noticed."""
    MACHINE.set(machine := CacheMachine(subject))
    try:
        playing.hypothesis.inner_test(data)  # drawn from this property's data, so from its seed
    except WRONG as broken:
        broken.smaller = partial(machine.tell_the_shortest, broken)  # type: ignore[union-attr]
        raise
