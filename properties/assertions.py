"""What a property asserts: within the budget, equal bit for bit, at most a bound, greedy. Each raises ClaimBroken and counts.

The tolerances are the budgets' own (`error_budget.budgets`); nothing here holds a number of its own.
"""

from typing import Any

import numpy as np

from properties.error_budget import budgets
from properties.implementations.contract import in_force
from properties.implementations.conventions import posed
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call
from properties.steps import STEPS
from properties.verdicts import ClaimBroken, record
from reports.records import Verdict


def assert_rounding_only(impl: Impl, step: str, got: Any, *args: Any, **kwargs: Any) -> None:
    """`got` differs from the oracle's step(*args, **kwargs) by what rounding allows the implementation, and by nothing else.

    Of a step with several results `got` is a dict of arrays, and each is judged by itself. Raises ClaimBroken, and records what was
    compared. An answer of the oracle's own that equals the oracle's is not counted.
    """
    if step in budgets.COPIES:
        assert_identical(got, oracle(step, *args, **kwargs), step)
        return
    args, kwargs = posed(step, args, kwargs, impl.conventions)
    if impl.name == "reference" and _is_the_oracles(got, oracle(step, *args, **kwargs)):
        record.current.with_itself += 1
        return
    if STEPS[step].results:
        for name, allowed in budgets.budgets(step, *args, contract=in_force(impl), **kwargs).items():
            assert_within(f"{step}: {name}", got[name], allowed)
        return
    assert_within(step, got, budgets.budget(step, *args, contract=in_force(impl), **kwargs))


def _is_the_oracles(got: Any, exact: Any) -> bool:
    """Whether an answer, or each of several by their names, is the oracle's bit for bit."""
    if isinstance(exact, dict):
        return all(np.array_equal(got[name], exact[name], equal_nan=True) for name in exact)
    return np.array_equal(got, exact, equal_nan=True)


def assert_within(what: str, got: np.ndarray, allowed: budgets.Budget) -> None:
    """`got` is within this budget. Raises ClaimBroken, and records what was compared."""
    score = allowed.score(got)
    record.compared(score.elements, undecidable=score.undecidable, budget_used=score.budget_used)
    if score.verdict is Verdict.FAIL:
        raise ClaimBroken(
            f"{what} {score}", index=score.index, expected=score.expected, got=score.got, budget_used=score.budget_used
        )
    if score.verdict is Verdict.SUSPECT:
        record.suspect(f"{what} {score}")


def assert_identical(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal bit for bit, where NaN equals NaN and −0 equals 0. Raises ClaimBroken; records what was compared."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise ClaimBroken(f"{what}: expected shape {expected.shape}, got {got.shape}", expected=expected.shape, got=got.shape)
    record.compared(got.size)
    different = (got != expected) & ~(_is_nan(got) & _is_nan(expected))
    if not different.any():
        return
    place = tuple(int(i) for i in np.argwhere(different)[0])
    right, wrong = expected[place].item(), got[place].item()
    message = f"{what}: expected {right} at {place}, got {wrong}; {int(different.sum())} of {got.size} differ"
    raise ClaimBroken(message, index=place, expected=right, got=wrong)


def assert_at_most(value: float, bound: float, what: str) -> None:
    """`value` ≤ `bound`, NaN being above everything. Raises ClaimBroken; records one comparison and the share of the bound."""
    budget_used = 0.0 if value <= 0 else value / bound if bound > 0 else np.inf
    record.compared(1, budget_used=min(budget_used, 1.0) if value <= bound else budget_used)
    if not value <= bound:
        raise ClaimBroken(
            f"{what}: expected at most {bound:.6g}, got {value:.6g}", expected=bound, got=value, budget_used=budget_used
        )


def taught(call: Call, written: np.ndarray) -> Call:
    """The call of `transformer` in which the target is what was written, token by token, behind the start token."""
    source, source_mask = call.args
    bos = np.full((len(written), 1), call.kwargs["bos"])
    choices = {name: value for name, value in call.kwargs.items() if name not in ("bos", "eos", "length")}
    return Call((source, np.concatenate([bos, written[:, :-1]], axis=1), source_mask), choices)


def chosen(call: Call, written: np.ndarray) -> np.ndarray:
    """Which of the written tokens were chosen: all up to and with a row's own end token. (b, length), True = chosen."""
    ended = np.cumsum(written == call.kwargs["eos"], axis=1)
    return (ended == 0) | ((ended == 1) & (written == call.kwargs["eos"]))


def assert_greedy(impl: Any, call: Call, written: np.ndarray, logits: np.ndarray | None = None) -> None:
    """Every chosen token has the largest of these logits (the oracle's, if none are given), or one that rounding can make largest.

    The model is taught the tokens written so far, so one token chosen by a hair does not condemn those that follow it. Where a
    written token is not the winner, the nearest logits in which it is must lie within the budget of the true ones.
    """
    teaching = taught(call, written)
    logits = np.asarray(oracle("transformer", *teaching.args, **teaching.kwargs)) if logits is None else logits
    of_written = np.take_along_axis(logits, written[..., None], axis=-1)
    tie = (of_written + logits.max(axis=-1, keepdims=True)) / 2
    is_written = np.arange(logits.shape[-1]) == written[..., None]
    nearest = np.where(chosen(call, written)[..., None], np.where(is_written, tie, np.minimum(logits, tie)), logits)

    assert_rounding_only(impl, "transformer", nearest, *teaching.args, **teaching.kwargs)


def _is_nan(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
