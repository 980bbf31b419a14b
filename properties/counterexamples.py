"""From a broken property to a counterexample that stands for itself: the smallest call that shows the fault, and what is expected.

A property may be about several answers at once. A counterexample is about one: whichever of them is further from the oracle's
than rounding allows, in the fewest calls that show it. `counterexample_files` writes it down.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.budgets import COPIES, FAIL, budget
from properties.calls import Asked
from properties.contracts import in_force
from properties.conventions import asked as as_they_want_it
from properties.conventions import posed
from properties.implementations.cached import play
from properties.implementations.recomputed import Recomputed
from properties.implementations.registry import built_in
from properties.implementations.subject import Subject
from properties.layouts import ASKED_BEFORE, REFILLED
from properties.minimise import SECONDS, minimised, numbers
from properties.oracle import ORACLES, oracle
from properties.verdicts import CandidateCrash, CandidateError, CandidateTimeout

WRONG = "wrong"  # an answer further from the oracle's than rounding allows
SURELY = "wrong beyond the proven bound"  # other kinds of fault are an exception's name


class Answer(NamedTuple):
    """What is expected, and how far an answer may be from it, component by component."""

    exact: np.ndarray
    allowed: np.ndarray  # by a budget
    sure: np.ndarray  # by a budget and, where there is one, by the proven bound: no honest answer is further off

    def over(self, got: np.ndarray, allowed: np.ndarray) -> bool:
        """Whether a component is further from what is expected than that."""
        if got.shape != self.exact.shape:
            return True
        with np.errstate(invalid="ignore"):
            same = (got == self.exact) | ((got != got) & (self.exact != self.exact))  # noqa: PLR0124 (NaN)
            return bool((~same & (allowed != np.inf) & ~(np.abs(got * 1.0 - self.exact * 1.0) <= allowed)).any())


Answers = list[Answer]


@dataclass(frozen=True)
class Counterexample:
    """Calls, asked one after the other, of which the last shows a fault."""

    claim: str
    law: str  # the property that broke
    implementation: str
    dtype: str
    arrays: str
    calls: tuple[Asked, ...]
    given: tuple[Asked, ...]  # the same as the implementation wants them, in its own conventions
    answers: tuple[Answers, ...]  # likewise

    @property
    def id(self) -> str:
        """A name that says what is broken, by whom and in which dtype; the same fault of the same numbers has the same."""
        digest = hashlib.blake2b(repr((self.law, self.calls)).encode(), digest_size=3).hexdigest()
        return "-".join([self.claim, _plain(self.implementation.replace(".py:", ".")), self.calls[-1].step, self.dtype, digest])

    @property
    def title(self) -> str:
        """One line."""
        return f"Claim {self.claim} is broken by {self.implementation}: {self.calls[-1].step} in {self.dtype} ({self.law})"

    @property
    def numbers(self) -> int:
        """How many numbers that are not zero a reader has to take in."""
        return sum(numbers(call) for call in self.calls)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in name)


# ---- what is expected ----


def answers(subject: Subject, asked: Asked) -> Answers | None:
    """What the subject must answer, and within which bounds; None where no single number can be held to one."""
    step, kwargs = asked.step, asked.kwargs
    if step == "kv_cache":
        return _answers_of_a_cache(subject, asked)
    args = posed(step, asked.args, subject.conventions)
    if step == "generation":
        return _written(subject, asked)
    if step in COPIES:
        exact = oracle(step, *args, **kwargs)
        return [Answer(exact, *[np.zeros(exact.shape)] * 2)]
    if step not in ORACLES or subject.conventions.eps == "outside":
        return None
    return [_allowed(subject, step, args, kwargs)]


def _allowed(subject: Subject, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
    first = budget(step, *args, contract=in_force(subject), **kwargs)
    derived = first.again()
    allowed = sure = FAIL * derived.scale
    if derived.bound is not None:
        allowed = np.minimum(allowed, np.maximum(derived.bound, 2 * first.scale))  # as a budget puts it, below the ceiling
        sure = np.maximum(sure, derived.bound)
    finite = np.isfinite(derived.exact)
    bounds = (np.where(derived.unjudged, np.inf, np.where(finite, each, 0.0)) for each in (allowed, sure))
    return Answer(np.asarray(derived.exact), *bounds)


def _answers_of_a_cache(subject: Subject, asked: Asked) -> Answers:
    """Those of a cache that recomputes; the bounds are recomputed likewise."""
    both = []
    for which in range(len(Answer._fields)):

        def transformer(*args: Any, which: int = which, **kwargs: Any) -> np.ndarray:
            return _allowed(subject, "transformer", args, kwargs)[which]

        results = play(partial(Recomputed, transformer), *asked.args, **asked.kwargs)["results"]
        both.append([logits for logits, _ in results if logits is not None])
    return [Answer(*each) for each in zip(*both, strict=True)]


def _written(subject: Subject, asked: Asked) -> Answers | None:
    """The oracle's words, where each of them leads by more than rounding could make up for."""
    model = {name: value for name, value in asked.kwargs.items() if name not in ("start", "end", "length")}
    words = oracle("generation", *asked.args, **asked.kwargs)
    source, *source_real = asked.args
    target = np.concatenate([np.full((len(words), 1), asked.kwargs["start"]), words[:, :-1]], axis=1)
    logits, allowed, _ = _allowed(subject, "transformer", (source, target, *source_real), model)
    first, second = np.sort(logits, axis=-1)[..., -1], np.sort(logits, axis=-1)[..., -2]
    clear = first - second > 2 * allowed.max(axis=-1)
    return [Answer(words, *[np.zeros(words.shape)] * 2)] if clear.all() else None


def fault(subject: Subject, calls: Sequence[Asked]) -> str | None:
    """The kind of fault that the last of these calls shows: SURELY, WRONG, an exception's name, or None; the others come before it.

    The implementation begins anew where it can (`close`), so that only these calls can have led to what is seen.
    """
    *before, last = calls
    try:
        expected = answers(subject, last)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None  # not a question that can be asked
    getattr(subject.adapter, "close", lambda: None)()
    try:
        for call in before:
            subject.reading(call.layout).call(call.step, *call.args, **call.kwargs)
        got = subject.reading(last.layout).call(last.step, *last.args, **last.kwargs)
    except (CandidateError, CandidateCrash, CandidateTimeout) as error:
        return f"{type(error).__name__} {str(error).split(' raised ')[-1].split(':')[0]}"
    except UnsatisfiedAssumption:
        return None  # not a question that it takes
    if expected is None:
        return None
    found = [logits for logits, _ in got["results"] if logits is not None] if last.step == "kv_cache" else [got]
    both = list(zip(found, expected, strict=True))
    if any(answer.over(each, answer.sure) for each, answer in both):
        return SURELY
    return WRONG if any(answer.over(each, answer.allowed) for each, answer in both) else None


def innocent(asked: Asked, dtype: str) -> bool:
    """Whether the fast implementation does not show a fault by this call: what condemns it too condemns nobody."""
    fast = Subject(built_in("optimized"), dtype)
    return not fast.offers(asked.step) or fault(fast, [asked]) is None


# ---- from a broken property to a counterexample ----


def smallest(subject: Subject, claim: str, prop: str, calls: Sequence[Asked], *, seconds: float = SECONDS) -> Counterexample | None:
    """The smallest counterexample found in what a broken example asked; None where no answer alone is out of bounds."""
    shown = _showing(subject, calls)
    if shown is None:
        return None
    *before, last = shown
    kind = fault(subject, shown)

    def shows(smaller: Asked) -> bool:
        return fault(subject, [*before, smaller]) == kind and innocent(smaller, subject.dtype)

    last = minimised(last, shows, seconds=seconds)
    shown = (*before, last)
    expected = [answers(subject, call) for call in shown]
    given = tuple(
        Asked(call.step, *as_they_want_it(call.step, call.args, call.kwargs, subject.conventions), call.layout) for call in shown
    )
    found = [_as_they_say_it(subject, call, each) if each else [] for call, each in zip(shown, expected, strict=True)]
    if kind == SURELY:
        found = [[answer._replace(allowed=answer.sure) for answer in each] for each in found]
    return Counterexample(claim, prop, subject.name, subject.dtype, subject.adapter.arrays, tuple(shown), given, tuple(found))


def _showing(subject: Subject, calls: Sequence[Asked]) -> tuple[Asked, ...] | None:
    """One call that shows the fault alone, or the fewest last ones that show it together.

    What was kept from a call of an earlier example is shown by one on arrays that held zeros when they were asked about before, or
    on parameters that were asked for something else before.
    """
    for call in reversed(calls):
        if fault(subject, [call]) is not None:
            return (call,)
    for count in range(2, len(calls) + 1):
        for end in range(len(calls), count - 1, -1):
            if calls[end - 1].step == calls[end - count].step and fault(subject, calls[end - count : end]) is not None:
                return tuple(calls[end - count : end])
    again = (call._replace(layout=before) for call in reversed(calls) for before in (REFILLED, ASKED_BEFORE))
    return next(((call,) for call in again if fault(subject, [call]) is not None), None)


def _as_they_say_it(subject: Subject, call: Asked, expected: Answers) -> Answers:
    """Our answers in the implementation's conventions, as it would give them."""
    conventions = subject.conventions
    (exact, *bounds), *more = expected
    match call.step:
        case "mask" if conventions.mask_polarity == "hidden":
            exact = ~exact
        case "positional_encoding" if conventions.layout == "halves":
            exact, *bounds = (np.concatenate([each[:, ::2], each[:, 1::2]], axis=1) for each in (exact, *bounds))
        case "softmax" if conventions.blind_softmax == "nan":
            exact = np.where((call.args[0] == -np.inf).all(axis=-1, keepdims=True), np.nan, exact)
        case "attention" if conventions.blind_row == "nan" and len(call.args) > 3 and call.args[3] is not None:
            may_look = np.broadcast_to(call.args[3], (*call.args[0].shape[:-1], call.args[1].shape[-2]))
            exact = np.where(may_look.any(axis=-1, keepdims=True), exact, np.nan)
    return [Answer(exact, *bounds), *more]
