"""What an implementation must answer to a call, and how far it may be off: by the oracle and the error budget.

In our conventions, and as the implementation itself would say it.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from properties.error_budget.budgets import AGAIN, COPIES, FAIL, SUSPECT, Budget, budget, budgets
from properties.implementations.autograd import FORWARD
from properties.implementations.cached import CACHES, play
from properties.implementations.calls import Asked
from properties.implementations.contract import in_force
from properties.implementations.conventions import LAYERS, Conventions, fully_masked, posed, seen_by_heads, visible, without_keys
from properties.implementations.impl import Impl
from properties.implementations.oracle import ORACLES, oracle
from properties.implementations.recomputed import Recomputed, RecomputedAttention
from properties.steps import STEPS


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


def answers(impl: Impl, asked: Asked, *, again: bool = True) -> Answers | None:
    """What the implementation must answer, and within which bounds; None where no single number can be held to one.

    Without `again` the bounds are from a budget's first trials, which are few: enough for what is far off or not off at all.
    """
    step, kwargs = asked.step, asked.kwargs
    if step in ("attention", *LAYERS) and _is_open(impl, asked):
        return None
    if step in CACHES:
        if any(operation[1] == "try" for operation in kwargs["program"]):
            return None  # it may be refused or not
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


def as_they_say_it(impl: Impl, call: Asked, expected: Answers) -> Answers:
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
