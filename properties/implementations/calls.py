"""What an implementation was asked in the example that is running: the material a counterexample is made of."""

from copy import deepcopy
from typing import Any, NamedTuple

from hypothesis.control import current_build_context
from hypothesis.errors import InvalidArgument

MOST = 12  # calls of one example that are kept; of more, the last


class Asked(NamedTuple):
    """One call of a step, in our own conventions."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layout: str | None = None  # of its arrays in memory, as `layouts.of` reads it; REFILLED, ASKED_BEFORE


class Calls:
    """The calls of the current example; when a property fails, of its smallest example, since Hypothesis runs that last."""

    def __init__(self) -> None:
        self.kept: list[Asked] = []
        self._example: object = None

    def note(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], layout: str | None = None) -> None:
        """Keep a copy of one call; the first of an example makes those of the example before forgotten."""
        example = _example()
        if example is not self._example:
            self.start()
            self._example = example
        self.kept = [*self.kept[1 - MOST :], Asked(step, deepcopy(args), deepcopy(kwargs), layout)]

    def start(self) -> None:
        """Forget everything."""
        self.kept, self._example = [], None


def _example() -> object:
    try:
        return current_build_context().data
    except InvalidArgument:
        return None  # outside of a Hypothesis test


calls = Calls()
