"""From a broken property to a counterexample that stands for itself: the smallest call that shows the fault, and what is expected.

A property may be about several answers at once. A counterexample is about one: whichever of them is further from the oracle's
than rounding allows, in the fewest calls that show it. `counterexample_files` writes it down.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.counterexample.minimise import SECONDS, minimised, numbers
from properties.error_budget.budgets import AGAIN, COPIES, FAIL, SUSPECT, Budget, budget, budgets
from properties.implementations.autograd import FORWARD
from properties.implementations.cached import CACHES, play
from properties.implementations.calls import Asked
from properties.implementations.contract import in_force
from properties.implementations.conventions import LAYERS, Conventions, fully_masked, posed, seen_by_heads, visible, without_keys
from properties.implementations.conventions import asked as as_they_want_it
from properties.implementations.impl import Impl
from properties.implementations.laid import Laid
from properties.implementations.layouts import ASKED_BEFORE, REFILLED
from properties.implementations.oracle import ORACLES, is_refused, oracle
from properties.implementations.recomputed import Recomputed, RecomputedAttention
from properties.implementations.registry import built_in
from properties.steps import OPTIONS, STEPS, expected_shape, expected_shapes
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout

WRONG = "wrong"  # an answer further from the oracle's than rounding allows
SURELY = "wrong beyond the proven bound"
NAN, INFINITE, FINITE = "NaN", "infinite", "finite where it must not be"  # an answer of another category than the oracle's
SHAPE = "of another shape"  # what remains is an exception's name


class Answer(NamedTuple):
    """What is expected, and how far an answer may be from it, component by component."""

    exact: np.ndarray
    allowed: np.ndarray  # by a budget
    sure: np.ndarray  # by a budget and, where there is one, by the proven bound: no correct answer is further off

    def over(self, got: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Which components are further from what is expected than that."""
        with np.errstate(invalid="ignore"):
            same = (got == self.exact) | ((got != got) & (self.exact != self.exact))  # noqa: PLR0124 (NaN)
            return ~same & (allowed != np.inf) & ~(np.abs(got * 1.0 - self.exact * 1.0) <= allowed)

    def settles(self, got: np.ndarray) -> bool:
        """Whether bounds from few trials are enough to judge: those beyond what the heaviest correct tails reach, or within all."""
        if got.shape != self.exact.shape:
            return True
        near, far = self.over(got, self.allowed * (SUSPECT / FAIL)), self.over(got, self.sure * (HEAVIEST / FAIL))
        both_finite = np.isfinite(got * 1.0) & np.isfinite(self.exact * 1.0)
        return not near.any() or bool(far.any() and both_finite[near].all())


HEAVIEST = 1e4  # σ of few trials: an error that goes through a change of sign may by rounding alone be of hundreds
Answers = list[Answer]


class Fault(NamedTuple):
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
    fault: Fault  # what the last of them shows
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


# ---- what is expected ----


def answers(impl: Impl, asked: Asked, *, again: bool = True) -> Answers | None:
    """What the implementation must answer, and within which bounds; None where no single number can be held to one.

    Without `again` the bounds are from a budget's first trials, which are few: enough for what is far off or not off at all.
    """
    step, kwargs = asked.step, asked.kwargs
    if step in ("attention", *LAYERS) and _is_open(impl, asked):
        return None
    if step in CACHES:
        return _answers_of_a_cache(impl, asked, again=again)
    args, kwargs = posed(step, asked.args, kwargs, impl.conventions)
    if step == "generation":
        return _written(impl, asked)
    if step in COPIES:
        exact = oracle(step, *args, **kwargs)
        return [Answer(exact, *[np.zeros(exact.shape)] * 2)]
    if step not in ORACLES or impl.conventions.eps == "outside":
        return None
    if step in FORWARD and not all(np.isfinite(X).all() for X in asked.args if X is not None and step != "softmax_backward"):
        return None
    if STEPS[step].results:
        each = budgets(step, *args, contract=in_force(impl), **kwargs)
        return [_answer(found, again=again) for found in each.values()]
    return [_allowed(impl, step, args, kwargs, again=again)]


def _is_open(impl: Impl, asked: Asked) -> bool:
    """Whether more than one answer is right: to a row of a layer that is fully masked, where that is not zeros; and to NaN or ∞.

    To these everywhere but in keys that are masked for all, where they are blocked.
    """
    zeros = asked.step not in LAYERS or impl.conventions.fully_masked_row == "zeros"
    if not (zeros or seen_by_heads(asked.args, asked.kwargs, impl.conventions).any(axis=-1).all()):
        return True
    if all(np.isfinite(X).all() for X in asked.args if X is not None):
        return False
    if asked.step in LAYERS or impl.conventions.non_finite_masked_key == "leaks":
        return True
    Q, K, V = asked.args[:3]
    attended = visible(asked.args, asked.kwargs, impl.conventions).any(axis=2)
    attended = attended.reshape(len(K), K.shape[1], -1, K.shape[2]).any(axis=2)  # by any of the heads that read a key
    return not (np.isfinite(Q).all() and np.isfinite(V).all() and np.isfinite(K[attended]).all())


def _allowed(impl: Impl, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, again: bool = True) -> Answer:
    return _answer(budget(step, *args, contract=in_force(impl), **kwargs), again=again)


def _answer(first: Budget, *, again: bool) -> Answer:
    derived = first.again(AGAIN) if again else first
    allowed = sure = FAIL * derived.scale
    if derived.bound is not None:
        allowed = np.minimum(allowed, np.maximum(derived.bound, 2 * first.scale))  # as a budget puts it, below the ceiling
        sure = np.maximum(sure, derived.bound)
    finite = np.isfinite(derived.exact)
    bounds = (np.where(derived.undecidable, np.inf, np.where(finite, each, 0.0)) for each in (allowed, sure))
    return Answer(np.asarray(derived.exact), *bounds)


def _answers_of_a_cache(impl: Impl, asked: Asked, *, again: bool) -> Answers:
    """Those of a cache that recomputes; the bounds are recomputed likewise."""
    start, step = (Recomputed, "transformer") if asked.step == "kv_cache" else (RecomputedAttention, "attention")
    both = []
    for which in range(len(Answer._fields)):

        def ask(*args: Any, which: int = which, **kwargs: Any) -> np.ndarray:
            return _allowed(impl, step, args, kwargs, again=again)[which]

        results = play(partial(start, ask), *asked.args, **asked.kwargs)["results"]
        both.append([answer for answer, _ in results if answer is not None])
    return [Answer(*each) for each in zip(*both, strict=True)]


def _written(impl: Impl, asked: Asked) -> Answers | None:
    """The oracle's tokens, where each of them leads by more than rounding could make up for."""
    model = {name: value for name, value in asked.kwargs.items() if name not in ("bos", "eos", "length")}
    tokens = oracle("generation", *asked.args, **asked.kwargs)
    source, *source_mask = asked.args
    target = np.concatenate([np.full((len(tokens), 1), asked.kwargs["bos"]), tokens[:, :-1]], axis=1)
    logits, allowed, _ = _allowed(impl, "transformer", (source, target, *source_mask), model)
    first, second = np.sort(logits, axis=-1)[..., -1], np.sort(logits, axis=-1)[..., -2]
    clear = first - second > 2 * allowed.max(axis=-1)
    return [Answer(tokens, *[np.zeros(tokens.shape)] * 2)] if clear.all() else None


def fault(impl: Impl, calls: Sequence[Asked]) -> str | None:
    """The kind of fault that the last of these calls shows, or None; see `seen`."""
    found = seen(impl, calls)
    return None if found is None else found.kind


def seen(impl: Impl, calls: Sequence[Asked], *, anew: bool = True) -> Fault | None:
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
        return Fault(f"{type(error).__name__} {str(error).split(' raised ')[-1].split(':')[0]}", str(error), error)
    except ClaimBroken as refusal:  # of arguments within the domain that it declares
        return Fault("refused", str(refusal), refusal)
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


def _difference(answer: Answer, got: np.ndarray) -> Fault | None:
    """How an answer differs from what is expected by more than is allowed, and where the most."""
    if got.shape != answer.exact.shape:
        return Fault(SHAPE, f"expected a result of shape {answer.exact.shape}, got {got.shape}")
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
    return Fault(kind, f"{values}; {int(off.sum())} of {off.size} are off by more than rounding" if off.size > 1 else values)


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


def _told(impl: Impl, claim: str, prop: str, shown: tuple[Asked, ...], fault: Fault, name: str) -> Counterexample:
    expected = [answers(impl, call) for call in shown]
    larger = [_laid(impl, call) for call in shown]
    given = tuple(
        Asked(call.step, *as_they_want_it(call.step, asked.args, asked.kwargs, impl.conventions), call.layout)
        for call, asked in zip(shown, larger, strict=True)
    )
    found = [
        _spread(asked, call, _as_they_say_it(impl, call, each)) if each else []
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


def _as_they_say_it(impl: Impl, call: Asked, expected: Answers) -> Answers:
    """Our answers in the implementation's conventions, as it would give them."""
    conventions = impl.conventions
    (exact, *bounds), *more = expected
    match call.step:
        case "mask" if conventions.mask_polarity == "true_masks":
            exact = ~exact
        case "positional_encoding" if conventions.layout == "halves":
            exact, *bounds = (np.concatenate([each[:, ::2], each[:, 1::2]], axis=1) for each in (exact, *bounds))
        case "softmax" if conventions.fully_masked_softmax == "nan":
            exact = np.where((call.args[0] == -np.inf).all(axis=-1, keepdims=True), np.nan, exact)
        case "attention" if conventions.fully_masked_row == "nan":
            exact = np.where(fully_masked(call.args, call.kwargs, conventions), np.nan, exact)
        case "log_sum_exp":
            exact, bounds = _log_sum_exp_as_they_say_it(exact, bounds, conventions)
        case "packed_attention" | "paged_attention" | "cached_attention" if conventions.sequence_without_keys in (
            "nan",
            "unspecified",
        ):
            alone = without_keys(call.step, call.args, call.kwargs, conventions)
            if conventions.sequence_without_keys == "nan":
                exact = np.where(alone, np.nan, exact)
            else:
                bounds = [np.where(alone, np.inf, each) for each in bounds]
    return [Answer(exact, *bounds), *more]


def _log_sum_exp_as_they_say_it(
    exact: np.ndarray, bounds: list[np.ndarray], conventions: Conventions
) -> tuple[np.ndarray, list[np.ndarray]]:
    """To their base, and for a fully masked row what they have."""
    if conventions.log_sum_exp_base == "two":
        exact, bounds = exact / np.log(2.0), [each / np.log(2.0) for each in bounds]
    theirs = {"plus_infinity": np.inf, "nan": np.nan}.get(conventions.fully_masked_log_sum_exp or "", -np.inf)
    fully_masked = exact == -np.inf
    if conventions.fully_masked_log_sum_exp == "lowest":
        return exact, [np.where(fully_masked, np.inf, each) for each in bounds]
    return np.where(fully_masked, theirs, exact), bounds
