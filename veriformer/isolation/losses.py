"""What an implementation that crashes and hangs may cost: inputs remembered, time rationed."""

from typing import Any

import hypothesis

from properties.verdicts import ImplementationTimeout, record

Failure = tuple[type[Exception], str]
"""The exception about the implementation, and its text."""


class RestartPolicy:
    """The inputs that cost the implementation its process.

    They are remembered, so that Hypothesis, which replays an input to confirm it, meets the same exception at once. And they
    are rationed, so that shrinking a hang ends: after a step has hung once for the full `max_time`, its limit drops to 20 times its
    slowest answer; after HANGS lost inputs to time or a ration of seconds within one property, inputs not seen before are
    rejected (`hypothesis.reject()`: the example does not count), while known ones answer or fail as they did.
    """

    HANGS = 15
    SECONDS = 20.0  # of one property; shared by the properties that lose time, so that a run of many ends too
    LEAST_SECONDS = 4.0
    LEAST_LIMIT = 0.5
    LIMIT_UNANSWERED = 1.0  # of a step that has hung and never answered

    def __init__(self, max_time: float) -> None:
        self.max_time = max_time
        self.failures: dict[bytes, Failure] = {}
        self.slowest: dict[str, float] = {}  # seconds of the slowest answer of each step
        self.hung: set[str] = set()
        self.properties = 0  # how many have lost time so far
        self._property: Any = None
        self._begin()

    def _begin(self) -> None:
        self.seen: set[bytes] = set()
        self.hangs, self.seconds = 0, 0.0

    def _current(self) -> None:
        if record.current is not self._property:  # another property is running
            self._property = record.current
            self._begin()

    def known(self, digest: bytes) -> Failure | None:
        """How this input failed before."""
        return self.failures.get(digest)

    def ration_is_used_up_for(self, digest: bytes) -> bool:
        """Whether to reject this input; never outside of Hypothesis."""
        self._current()
        ration = max(self.LEAST_SECONDS, self.SECONDS / max(1, self.properties))
        used_up = self.hangs > self.HANGS or self.seconds > ration
        return used_up and digest not in self.seen and hypothesis.currently_in_test_context()

    def limit(self, step: str) -> float:
        """How many seconds `step` may take now."""
        if step not in self.hung:
            return self.max_time
        slowest = self.slowest.get(step)
        return min(self.max_time, self.LIMIT_UNANSWERED if slowest is None else max(self.LEAST_LIMIT, 20 * slowest))

    def answered(self, step: str, digest: bytes, seconds: float) -> None:
        """Note that the input was answered (with a result or an exception)."""
        self.seen.add(digest)
        self.slowest[step] = max(self.slowest.get(step, 0.0), seconds)

    def lost(self, step: str, digest: bytes, failure: Failure, seconds: float) -> None:
        """Note that the input ended the worker. The first hang of a step takes `max_time`, which is not counted."""
        if not self.hangs and not self.seconds:
            self.properties += 1
        self.failures[digest] = failure
        if failure[0] is ImplementationTimeout:
            self.hangs += 1
            seconds = seconds if step in self.hung else 0.0
            self.hung.add(step)
        self.seconds += seconds

    def restarted(self, seconds: float) -> None:
        """A new worker imported the target again: that counts too, where a target is slow to import."""
        if self.failures:
            self.seconds += seconds
