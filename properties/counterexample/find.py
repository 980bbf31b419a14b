"""From a broken property to a counterexample that stands for itself: the smallest call that shows the fault, and what is expected.

A property may be about several answers at once. A counterexample is about one: whichever of them is further from the oracle's
than rounding allows, in the fewest calls that show it. `counterexample_files` writes it down.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.counterexample.expected import Answer, Answers, answers, as_they_say_it
from properties.counterexample.minimise import SECONDS, minimised, numbers
from properties.implementations.cached import CACHES
from properties.implementations.calls import Asked
from properties.implementations.conventions import asked as as_they_want_it
from properties.implementations.impl import Impl
from properties.implementations.laid import Laid
from properties.implementations.layouts import ASKED_BEFORE, REFILLED
from properties.implementations.oracle import is_refused
from properties.implementations.registry import built_in
from properties.steps import OPTIONS, STEPS, expected_shape, expected_shapes
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout

WRONG = "wrong"  # an answer further from the oracle's than rounding allows
SURELY = "wrong beyond the proven bound"
NAN, INFINITE, FINITE = "NaN", "infinite", "finite where it must not be"  # an answer of another category than the oracle's
SHAPE = "of another shape"  # what remains is an exception's name


class Symptom(NamedTuple):
    """What is wrong with an answer."""

    kind: str  # WRONG, SURELY, NAN, INFINITE, FINITE, SHAPE, or an exception's name
    detail: str  # in one line
    error: Exception | None = None  # what was raised in place of an answer


@dataclass(frozen=True)
class Counterexample:
    """Calls, asked one after the other, of which the last shows a fault."""

    claim: str
    law: str  # the property that broke
    implementation: str
    dtype: str
    arrays: str
    calls: tuple[Asked, ...]
    given: tuple[Asked, ...]  # the same as the implementation wants them, in its own conventions and within its domain
    answers: tuple[Answers, ...]  # likewise
    fault: Symptom  # what the last of them shows
    derived: bool = False  # whether the step is had by autograd of its forward, which alone is offered
    name: str = ""  # of the failure it is a counterexample of; "": one of its own

    @property
    def id(self) -> str:
        """The name of the failure; or one that says what is broken, by whom and in which dtype, the same for the same numbers."""
        if self.name:
            return self.name
        digest = hashlib.blake2b(repr((self.law, self.calls)).encode(), digest_size=3).hexdigest()
        return "-".join([self.claim, as_name(self.implementation.replace(".py:", ".")), self.calls[-1].step, self.dtype, digest])

    @property
    def ends_its_process(self) -> bool:
        """Whether the implementation crashes or hangs, and the script with it."""
        return self.fault.kind.startswith((ImplementationCrash.__name__, ImplementationTimeout.__name__))

    @property
    def title(self) -> str:
        """One line."""
        return f"Claim {self.claim} is broken by {self.implementation}: {self.calls[-1].step} in {self.dtype} ({self.law})"

    @property
    def numbers(self) -> int:
        """How many numbers that are not zero a reader has to take in."""
        return sum(numbers(call) for call in self.calls)


def as_name(text: str) -> str:
    """The text as a part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in text)


def fault(impl: Impl, calls: Sequence[Asked]) -> str | None:
    """The kind of fault that the last of these calls shows, or None; see `seen`."""
    found = seen(impl, calls)
    return None if found is None else found.kind


def seen(impl: Impl, calls: Sequence[Asked], *, anew: bool = True) -> Symptom | None:
    """The fault that the last of these calls shows, or None; the others come before it.

    The implementation begins `anew` where it can (`close`), so that only these calls can have led to what is seen.
    """
    *before, last = calls
    try:
        expected = answers(impl, last, again=False)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None  # not a question that can be asked
    if anew:
        getattr(impl.adapter, "close", lambda: None)()
    try:
        for call in before:
            impl.reading(call.layout).call(call.step, *call.args, **call.kwargs)
        got = impl.reading(last.layout).call(last.step, *last.args, **last.kwargs)
    except (ImplementationError, ImplementationCrash, ImplementationTimeout) as error:
        return Symptom(f"{type(error).__name__} {str(error).split(' raised ')[-1].split(':')[0]}", str(error), error)
    except ClaimBroken as refusal:  # of arguments within the domain that it declares
        return Symptom("refused", str(refusal), refusal)
    except UnsatisfiedAssumption:  # it does not take these arguments
        return None
    if expected is None:
        return None
    found = _several(last.step, got)
    if not all(answer.settles(each) for each, answer in zip(found, expected, strict=True)):
        expected = answers(impl, last) or []
    wrong = [shown for each, answer in zip(found, expected, strict=True) if (shown := _difference(answer, each)) is not None]
    return next((shown for shown in wrong if shown.kind != WRONG), wrong[0] if wrong else None)


def _several(step: str, got: Any) -> list[np.ndarray]:
    """The arrays of an answer."""
    if step in CACHES:
        return [answer for answer, _ in got["results"] if answer is not None]
    return [got[name] for name in STEPS[step].results] or [got]


def _difference(answer: Answer, got: np.ndarray) -> Symptom | None:
    """How an answer differs from what is expected by more than is allowed, and where the most."""
    if got.shape != answer.exact.shape:
        return Symptom(SHAPE, f"expected a result of shape {answer.exact.shape}, got {got.shape}")
    exact, given = answer.exact * 1.0, got * 1.0
    off = answer.over(got, answer.allowed)
    if not off.any():
        return None
    kinds = {
        NAN: off & np.isnan(given),
        INFINITE: off & np.isinf(given),
        FINITE: off & ~np.isfinite(exact),
        SURELY: answer.over(got, answer.sure),
        WRONG: off,
    }
    kind = next(kind for kind, places in kinds.items() if places.any())
    with np.errstate(invalid="ignore", divide="ignore"):
        how_far = np.where(kinds[kind], np.nan_to_num(np.abs(given - exact) / answer.allowed, nan=np.inf), -1.0)
    place = tuple(int(i) for i in np.unravel_index(int(how_far.argmax()), off.shape))
    bound = f" ± {answer.allowed[place]:.3g}" if kind in (SURELY, WRONG) and answer.allowed[place] else ""
    values = f"expected {answer.exact[place].item()}{bound}, got {got[place].item()} at {place}"
    return Symptom(kind, f"{values}; {int(off.sum())} of {off.size} are off by more than rounding" if off.size > 1 else values)


def innocent(asked: Asked, dtype: str) -> bool:
    """Whether the fast implementation does not show a fault by this call: what condemns it too condemns nobody."""
    fast = Impl(built_in("optimized"), dtype)
    return not fast.offers(asked.step, *_options(asked)) or fault(fast, [asked]) is None


def _options(asked: Asked) -> list[str]:
    """The options that the call needs, as `Impl.offers` takes them."""
    named = [name for name in asked.kwargs if name in OPTIONS.get(asked.step, ())]
    grouped = asked.step == "attention" and asked.args[0].shape[1] != asked.args[1].shape[1]
    return [f"{asked.step}.{name}" for name in (*named, *(["grouped_heads"] if grouped else []))]


# ---- from a broken property to a counterexample ----


def smallest(
    impl: Impl, claim: str, prop: str, calls: Sequence[Asked], *, seconds: float = SECONDS, name: str = ""
) -> Counterexample | None:
    """The smallest counterexample found in what a broken example asked; None where no answer alone is out of bounds.

    It is looked for with the implementation as it is by now, as a start of its process for every trial would take most of the
    time. What is found must show in a new process, and on the fast implementation it must not; otherwise every trial is held to
    both.
    """
    calls = [call for call in calls if not is_refused(call.step, call.args, call.kwargs)]
    for strictly in (False, True):
        shown = _made_small(impl, calls, strictly=strictly, until=time.monotonic() + seconds / (1 + strictly))
        fault = None if shown is None else seen(impl, shown)
        if shown is not None and fault is not None and innocent(shown[-1], impl.dtype):
            return _told(impl, claim, prop, shown, fault, name)
    return None


def _made_small(impl: Impl, calls: Sequence[Asked], *, strictly: bool, until: float) -> tuple[Asked, ...] | None:
    shown = _showing(impl, calls, until) if strictly else alone(impl, calls)
    if shown is None:
        return None
    *before, last = shown
    found = seen(impl, shown, anew=strictly)

    def shows(smaller: Asked) -> bool:
        same = found is not None and (other := seen(impl, [*before, smaller], anew=strictly)) and other.kind == found.kind
        return bool(same) and (not strictly or innocent(smaller, impl.dtype))

    return (*before, minimised(last, shows, seconds=until - time.monotonic()))


def _told(impl: Impl, claim: str, prop: str, shown: tuple[Asked, ...], fault: Symptom, name: str) -> Counterexample:
    expected = [answers(impl, call) for call in shown]
    larger = [_laid(impl, call) for call in shown]
    given = tuple(
        Asked(call.step, *as_they_want_it(call.step, asked.args, asked.kwargs, impl.conventions), call.layout)
        for call, asked in zip(shown, larger, strict=True)
    )
    found = [
        _spread(asked, call, as_they_say_it(impl, call, each)) if each else []
        for call, asked, each in zip(shown, larger, expected, strict=True)
    ]
    if fault.kind == SURELY:
        found = [[answer._replace(allowed=answer.sure) for answer in each] for each in found]
    about = (claim, prop, impl.name, impl.dtype, impl.adapter.arrays)
    derived = shown[-1].step in getattr(impl.adapter, "derived", ())
    return Counterexample(*about, shown, given, tuple(found), fault, derived, name)


def _laid(impl: Impl, call: Asked) -> Laid:
    return impl.laid(call.step, call.args, call.kwargs)


def _spread(asked: Laid, call: Asked, expected: Answers) -> Answers:
    """What is expected of the larger call that was asked: of what is not the smaller one's, nothing."""
    if not asked.parts:
        return expected
    several = STEPS[call.step].results
    shapes = (
        [*expected_shapes(call.step, asked.args, asked.kwargs).values()]
        if several
        else [expected_shape(call.step, asked.args, asked.kwargs)]
    )
    rests = (0.0, np.inf, np.inf)
    return [
        Answer(*(part.spread(each, shape, rest) for each, rest in zip(answer, rests, strict=True)))
        for answer, part, shape in zip(expected, asked.parts, shapes, strict=True)
    ]


def alone(impl: Impl, calls: Sequence[Asked]) -> tuple[Asked] | None:
    """The last call that shows a fault by itself, the implementation being asked as it is by now."""
    asked = (call for call in reversed(calls) if not is_refused(call.step, call.args, call.kwargs))
    return next(((call,) for call in asked if seen(impl, [call], anew=False) is not None), None)


def _showing(impl: Impl, calls: Sequence[Asked], until: float) -> tuple[Asked, ...] | None:
    """One call that shows the fault alone, or the fewest last ones that show it together; None where there is none by `until`.

    What was kept from a call of an earlier example is shown by one on arrays that held zeros when they were asked about before, or
    on parameters that were asked for something else before.
    """
    spans = [(end - count, end) for count in range(1, len(calls) + 1) for end in range(len(calls), count - 1, -1)]
    together = (tuple(calls[first:end]) for first, end in spans if calls[first].step == calls[end - 1].step)
    again = ((call._replace(layout=before),) for call in reversed(calls) for before in (REFILLED, ASKED_BEFORE))
    for shown in chain(together, again):
        if time.monotonic() > until:
            return None
        if fault(impl, shown) is not None:
            return shown
    return None
