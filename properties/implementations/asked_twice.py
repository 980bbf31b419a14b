"""An implementation that is asked everything twice, for probes: an answer that does not come again would be lost in them.

No property sees what an implementation says to a probe. So what it says only once, an exception at its first call or NaN at its
thirtieth, is kept here, for the first property to tell.
"""

from typing import Any, NamedTuple, Self

import numpy as np

from properties.implementations.impl import Adapter, Impl
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout, NotOffered


class Outcome(NamedTuple):
    """What came of a call: an answer, or what was raised."""

    answer: Any
    raised: Exception | None


class AskedTwice(Impl):
    """The implementation, and in `unsteady` each answer of its that did not come again, as a property raises it."""

    def __init__(self, adapter: Adapter, dtype: str, device: str, unsteady: list[Exception]) -> None:
        super().__init__(adapter, dtype, device)
        self.unsteady = unsteady

    def another(self) -> Self:
        """The same, of which nothing is settled yet."""
        return type(self)(self.adapter, self.dtype, self.device, self.unsteady)

    def attempt(self, step: str, *args: Any, **kwargs: Any) -> Any:
        """As of any implementation; the second answer counts."""
        first, again = (self._outcome(step, args, kwargs) for _ in range(2))
        if not _same(first, again):
            self.unsteady.append(_difference(step, first, again))
        if again.raised is not None:
            raise again.raised
        return again.answer

    def _outcome(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        try:
            return Outcome(super().attempt(step, *args, **kwargs), None)
        except (NotOffered, ClaimBroken, ImplementationError, ImplementationCrash, ImplementationTimeout) as error:
            return Outcome(None, error)


def _same(first: Outcome, again: Outcome) -> bool:
    """Whether a call was answered alike, or not taken; in what words it was refused is not looked at."""
    if first.raised is not None or again.raised is not None:
        return type(first.raised) is type(again.raised) or NotOffered in (type(first.raised), type(again.raised))
    if not isinstance(again.answer, np.ndarray):
        return True  # of several arrays
    return np.array_equal(first.answer, again.answer, equal_nan=again.answer.dtype.kind == "f")


def _difference(step: str, first: Outcome, again: Outcome) -> Exception:
    raised = first.raised or again.raised
    if raised is not None:
        return raised
    one, other = first.answer, again.answer
    both_nan = (one != one) & (other != other)  # noqa: PLR0124 (NaN)
    index = tuple(int(i) for i in np.argwhere((one != other) & ~both_nan)[0])
    return ClaimBroken(f"{step}, asked for twice: {first.answer[index]} at {index}, then {again.answer[index]}")
