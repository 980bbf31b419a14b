"""The oracle as an implementation like any other: the suite's laws hold it to account too, but never compare it with itself."""

from functools import partial
from typing import Any

from properties.implementations.conventions import OURS
from properties.implementations.oracle import ORACLES, oracle
from properties.implementations.recomputed import RecomputedAttention
from properties.steps import OPTIONS, option_name


class Reference:
    """The oracle as an implementation: each step is `oracle`'s own; a cache asks it again. A whole model has no gradients."""

    name = "reference"
    arrays = "numpy"
    dtypes = ("float64",)
    steps = frozenset(ORACLES) | {"attention_cache"}
    options = frozenset(option_name(step, option) for step, options in OPTIONS.items() for option in options)
    conventions = OURS

    def __getattr__(self, step: str) -> Any:
        if step == "attention_cache":
            return partial(RecomputedAttention, partial(oracle, "attention"))
        if step not in ORACLES:
            raise AttributeError(step)
        return partial(oracle, step)
