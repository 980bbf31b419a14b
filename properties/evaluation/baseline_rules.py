"""The usual rules, on the same data: what they say of a result, beside what ours says.

Each gives the size of a result's error as a multiple of what it allows: above 1 it rejects.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from properties.error_budget.budgets import Budget, Score, budget
from properties.error_budget.simulate import bound
from properties.evaluation.calibration.low_precision import LowPrecision
from properties.implementations.contract import envelope

PER_ELEMENT = {"float64": (1e-7, 1e-7), "float32": (1e-5, 1.3e-6), "bfloat16": (1e-5, 1.6e-2), "float16": (1e-5, 1e-3)}
"""`torch.testing.assert_close`: absolute and relative, by dtype (torch 2.13, its documented defaults)."""

TABLE = {"float64": (1e-7, 1e-7), "float32": (1e-6, 1e-4), "bfloat16": (1e-2, 1e-2), "float16": (5e-3, 5e-3)}
"""A fixed table: that of Hugging Face transformers' eager-against-SDPA tests on CPU (`tests/test_modeling_common.py`)."""


LIGER = {"float64": (1e-5, 1e-5), "float32": (1e-5, 1e-5), "bfloat16": (5e-2, 5e-2), "float16": (5e-2, 5e-2)}
"""Liger-Kernel's softmax and LayerNorm tests (`test/transformers/test_softmax.py`, `test_layer_norm.py`). Others have up to 2e-1 in
bfloat16. It tests neither float16 nor float64: these have bfloat16's and float32's."""

SOL_EXECBENCH, MATCHED = (1e-2, 1e-2), 0.99
"""SOL-ExecBench: absolute and relative in every dtype, and the share of elements that need to be within (no cap for the others)."""


@dataclass(frozen=True)
class Case:
    """A step, its arguments, and the dtype it is asked in; `probes` are exact results of named faults."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dtype: str
    probes: dict[str, np.ndarray] | None = None

    @cached_property
    def budget(self) -> Budget:
        """One serves all implementations of the case."""
        return budget(self.step, *self.args, dtype=self.dtype, probes=self.probes, **self.kwargs)

    @cached_property
    def baseline(self) -> float:
        """The largest error of a plain eager implementation in the dtype, which the 2× rule measures others by."""
        with np.errstate(all="ignore"):
            plain = getattr(LowPrecision(self.dtype), self.step)(*self.args, **self.kwargs)
        return float(np.abs(plain - self.budget.exact).max(initial=0.0))

    @cached_property
    def bound(self) -> np.ndarray:
        """The worst case, carried along through however many steps."""
        return bound(self.step, self.args, self.kwargs, envelope(self.dtype))


@dataclass(frozen=True)
class Judged:
    """One result of one case."""

    case: Case
    got: np.ndarray

    @cached_property
    def score(self) -> Score:
        """Ours."""
        return self.case.budget.score(self.got)

    @cached_property
    def error(self) -> np.ndarray:
        """In float64; NaN is as wrong as can be."""
        return np.nan_to_num(np.abs(self.got - self.case.budget.exact), nan=np.inf)


def _beyond(judged: Judged, table: dict[str, tuple[float, float]]) -> float:
    absolute, relative = table[judged.case.dtype]
    return worst_share(judged.error, absolute + relative * np.abs(judged.case.budget.exact))


def _beyond_of_most(judged: Judged, absolute: float, relative: float, share: float) -> float:
    """As `_beyond`, of all but the worst: so many elements need to be within."""
    ratios = np.sort(judged.error.ravel() / (absolute + relative * np.abs(judged.case.budget.exact).ravel()))
    return float(ratios[max(0, math.ceil(share * ratios.size) - 1)]) if ratios.size else 0.0


def worst_share(error: np.ndarray, allowed: np.ndarray | float) -> float:
    """The largest error in units of what is allowed; no error is 0 even where nothing is allowed (2 × 0)."""
    with np.errstate(all="ignore"):
        return float(np.where(error == 0, 0.0, error / allowed).max(initial=0.0))


RULES: dict[str, Callable[[Judged], float]] = {
    "ours": lambda judged: judged.score.budget_used,
    "assert_close": lambda judged: _beyond(judged, PER_ELEMENT),
    "fixed table": lambda judged: _beyond(judged, TABLE),
    "2x baseline": lambda judged: worst_share(judged.error, 2 * judged.case.baseline),
    "Liger-Kernel": lambda judged: _beyond(judged, LIGER),
    "SOL-ExecBench": lambda judged: _beyond_of_most(judged, *SOL_EXECBENCH, MATCHED),
    "worst-case bound": lambda judged: worst_share(judged.error, judged.case.bound),
}
"""The rules by name."""
