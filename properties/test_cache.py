"""The K/V cache: whatever is done to it, it answers what the whole model would, recomputed from the words of each row."""

from contextvars import ContextVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test

from properties.cache_machine import CacheMachine
from properties.claims import claim
from properties.implementations.subject import Subject

RULES = 6  # the most rules one example has, the start among them

SUBJECT: ContextVar[Subject] = ContextVar("subject")  # Hypothesis makes the machine, and hands it nothing

playing = get_state_machine_test(lambda: CacheMachine(SUBJECT.get()), settings=settings(stateful_step_count=RULES))


@claim("G1", needs="kv_cache")
@given(data=st.data())
def test_a_cache_answers_as_the_whole_model(subject, data):
    """Prompts in chunks, steps, rollback, rows that reorder, leave and join, copies and reuse: the cache is never noticed."""
    SUBJECT.set(subject)
    playing.hypothesis.inner_test(data)  # drawn from this property's data, so from its seed
