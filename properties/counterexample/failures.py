"""Which broken checks are one failure: the same step raises in the same place, or its answers are wrong in the same way.

An implementation that is wrong breaks many properties, in every dtype it is asked in. A failure is what they have in common: the
step, the kind of fault that one of its answers shows by itself, and what it takes to show (a mask, a layout in memory). It is told
by the first example that breaks a property, before anything is made small, so that all properties of one failure are explained by
the smallest counterexample of the one that met it first.
"""

import hashlib
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from properties.counterexample.find import FINITE, INFINITE, NAN, SURELY, WRONG, alone, as_name, seen
from properties.counterexample.minimise import replaced, size
from properties.implementations.calls import Asked
from properties.implementations.impl import Impl
from properties.verdict.judge import Judgement, cause_of
from properties.verdicts import ImplementationCrash, ImplementationError, ImplementationTimeout
from reports.records import Verdict

LARGE = 100_000  # numbers; a call of more is not asked again to tell its failure, nor written down
RAISED = re.compile(r" raised (\w+)")
PLACE = re.compile(r"\(([^()]+:\d+ in [^()\s]+)\)")  # as the implementation's process tells it: `mine.py:12 in attention`
NUMBER = re.compile(r"-?\b(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """What all properties have in common that one fault breaks, whatever the dtype."""

    implementation: str
    device: str
    step: str
    kind: str
    about: str = ""  # where it is raised, what it takes to show, or what is said of it

    @property
    def id(self) -> str:
        """A name for it: the same fault has the same in every run, whoever meets it first."""
        digest = hashlib.blake2b(repr((self.device, self.step, self.kind, self.about)).encode(), digest_size=3).hexdigest()
        kind = as_name(self.kind.replace(" ", "_"))
        return "-".join([as_name(self.implementation.replace(".py:", ".")), *([self.step] if self.step else []), kind, digest])


def failure_of(impl: Impl, judgement: Judgement) -> Failure:
    """The failure that a broken property is an instance of."""
    error, asked = cause_of(judgement.error), judgement.calls

    def failure(step: str, kind: str, about: str = "") -> Failure:
        return Failure(impl.name, impl.device, step, kind, about)

    step = asked[-1].step if asked else ""
    if isinstance(error, (ImplementationError, ImplementationCrash, ImplementationTimeout)):
        return failure(step, *_raised(error, impl))
    if asked and is_large(asked[-1]):
        return failure(step, _category(judgement))
    shown = alone(impl, asked) if judgement.verdict is Verdict.FAIL else None
    if shown is None:
        return failure(step, judgement.verdict.lower(), without_numbers(judgement.message, impl))
    (call,) = shown
    found = seen(impl, shown, anew=False)
    if found is not None and found.error is not None:
        return failure(call.step, *_raised(found.error, impl))
    kind = _kind(impl, call) or WRONG
    return failure(call.step, kind, ", ".join(what for what, other in _simpler(call) if _kind(impl, other) != kind))


def is_large(call: Asked) -> bool:
    """Whether a call has too many numbers to be asked again and again."""
    return size(call)[1] > LARGE


def without_numbers(message: str, impl: Impl) -> str:
    """What a message says of any implementation, dtype and example."""
    return NUMBER.sub("#", message.replace(impl.name, "it").replace(impl.dtype, "#"))


def _raised(error: Exception, impl: Impl) -> tuple[str, str]:
    """What an implementation did in place of answering, and where."""
    text = str(error)
    if isinstance(error, ImplementationTimeout):
        return "timeout", ""  # a loop is interrupted at one line or another
    place = next(iter(PLACE.findall(text)[-1:]), "") or _place(error.__cause__)
    if isinstance(error, ImplementationCrash):
        return "crash", place or text.partition("; its last output")[0].replace(impl.name, "it")
    raised = RAISED.search(text)
    return (raised[1], place or without_numbers(text, impl)) if raised else ("error", without_numbers(text, impl))


def _place(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return "".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames[-1:])


def _category(judgement: Judgement) -> str:
    """The kind of a fault by what a property says it expected and got."""
    try:
        expected, got = float(judgement.expected or ""), float(judgement.got or "")
    except ValueError:
        return WRONG
    return NAN if np.isnan(got) else INFINITE if np.isinf(got) else WRONG if np.isfinite(expected) else FINITE


def _kind(impl: Impl, call: Asked) -> str | None:
    found = seen(impl, [call], anew=False)
    return None if found is None else WRONG if found.kind == SURELY else found.kind


def _simpler(call: Asked) -> Iterator[tuple[str, Asked]]:
    """The call without what it may not take to show a fault."""
    masks = [place for place, value in enumerate(call.args) if isinstance(value, np.ndarray) and value.dtype == bool]
    if masks:
        other = call
        for place in masks:
            other = replaced(other, ("args", place), None)
        yield "mask", other
    if call.layout is not None:
        yield call.layout, call._replace(layout=None)
