"""Our own rounding simulator, judged by the budgets that come from it: no trial may be above the mark.

Every property runs once on the optimized implementation. Whatever it holds against a budget is a case: fixed examples and drawn
ones, with their masks, models and sizes. Fresh trials of a case are results like anybody's, and are judged as such.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from properties.error_budget import budgets
from properties.error_budget.simulate import simulate
from properties.implementations.contract import Contract, envelope
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.verdict.judge import run_property
from properties.verdict.listing import properties

ON = "optimized"  # offers every step, in every dtype
ROOM = 2**22  # components of the results of a case that are judged together: of large ones there are fewer


@dataclass(frozen=True)
class Simulated:
    """A step and its arguments, as a property asked for their budget."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def scores(self, held_to: Sequence[Contract], trials: int, seed: int) -> Iterator[budgets.Score]:
        """The scores of so many fresh trials under each of these contracts, by the budget of what is held to all of them."""
        allowed = budgets.budget(self.step, *self.args, contract=held_to, **self.kwargs)
        few = max(1, min(trials, ROOM // max(allowed.exact.size, 1)))
        exact, blocks = simulate(self.step, self.args, self.kwargs, held_to, few, self.key + seed)
        for errors in blocks:
            with np.errstate(all="ignore"):
                results = exact + errors
            yield from allowed.scores(results)

    @property
    def key(self) -> int:
        """The same number for the same step and arguments, whatever the dtype."""
        return int.from_bytes(budgets.digest(self.step, self.args, self.kwargs), "big")


def names() -> list[str]:
    """All properties that are planned for an implementation."""
    return [test.__name__ for test in properties() if not test.property_of_claim.oracle_only]  # type: ignore[attr-defined]


def cases(test: Callable[..., object], dtype: str, seed: int) -> list[Simulated]:
    """What one property holds against a budget on an implementation in `dtype`, each case once."""
    with _noted() as noted:
        run_property(test, Impl(built_in(ON), dtype), seed=seed, small=False)
    return list({case.key: case for case in noted}.values())


def held_to(dtype: str, number: int) -> dict[str, tuple[Contract, ...]]:
    """What implementations in `dtype` may be held to, by name: one that declares nothing, and one that declares a contract.

    The contracts take turns with the `number` of the case.
    """
    undeclared = {"undeclared": envelope(dtype)}
    if len(envelope(dtype)) == 1:
        return undeclared
    fused = Contract(dtype, mode="fused")
    declared = {"eager": Contract(dtype), "fused": fused, "fused, P cast": replace(fused, cast_weights=True)}
    name, contract = list(declared.items())[number % len(declared)]
    return {**undeclared, name: (contract,)}


@contextmanager
def _noted() -> Iterator[list[Simulated]]:
    """The step and the arguments of every budget that is asked for meanwhile."""
    noted, plain = [], budgets.budget

    def budget(step: str, *args: Any, **kwargs: Any) -> budgets.Budget:
        found = plain(step, *args, **kwargs)  # which refuses a step that has none
        own = {name: value for name, value in kwargs.items() if name not in ("contract", "dtype", "probes")}
        noted.append(Simulated(step, args, own))
        return found

    budgets.budget = budget
    try:
        yield noted
    finally:
        budgets.budget = plain
