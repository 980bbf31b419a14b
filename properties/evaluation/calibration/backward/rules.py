"""What else gradients are judged by, on the same data: each rule gives an error as a multiple of what it allows.

A result has one gradient or several; each is judged by itself, and the worst of them is the result's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from properties.error_budget.budgets import Budget, Score, budget, budgets
from properties.evaluation.baseline_rules import PER_ELEMENT, worst_share
from properties.evaluation.calibration.backward.by_autograd import by_hand
from properties.implementations.impl import DTYPES as TORCH
from properties.steps import STEPS

GRADCHECK = (1e-5, 1e-3)
"""`torch.autograd.gradcheck`: absolute and relative, its defaults. It means them for float64, and differences of the forward."""

FLASH = 3.0
"""flash-attention's `tests/test_flash_attn.py`: so many times the largest error of plain PyTorch in the dtype. Its newer tests add
twice what is lost where 0.3 is added to the gradient and subtracted again; so does this."""

FACTORS = {"dQ": 160.0, "dK": 25.0, "dV": 8.0}
"""PyTorch's `test/test_transformers.py` (`fudge_factors` of its memory-efficient attention): so many times the largest absolute
and relative error of plain PyTorch in the dtype, or its defaults where these are larger. Of other gradients than attention's: the
least."""

DEFAULTS = {"float64": (1e-7, 1e-7), "float32": (1e-5, 1.3e-6), "bfloat16": (1e-3, 1.6e-2), "float16": (1e-3, 1e-3)}
"""The `default_atol` and `default_rtol` of that file."""


@dataclass(frozen=True)
class Case:
    """A backward step, its arguments, and the dtype it is asked in."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dtype: str

    @cached_property
    def budgets(self) -> Mapping[str, Budget]:
        """Of each gradient, for all implementations of the case."""
        if STEPS[self.step].results:
            return budgets(self.step, *self.args, dtype=self.dtype, **self.kwargs)
        return {"dS": budget(self.step, *self.args, dtype=self.dtype, **self.kwargs)}

    @cached_property
    def baseline(self) -> Mapping[str, np.ndarray]:
        """The gradients by plain PyTorch in the dtype, operator by operator: what two of the rules measure others by."""
        return by_hand(self.step, self.args, self.kwargs, self.dtype)

    def judged(self, gradients: Mapping[str, np.ndarray]) -> dict[str, "Judged"]:
        """Each gradient of a result, by its name."""
        return {name: Judged(self, name, got) for name, got in gradients.items()}


@dataclass(frozen=True)
class Judged:
    """One gradient of one result of one case."""

    case: Case
    name: str
    got: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        """What the oracle gives."""
        return self.case.budgets[self.name].exact

    @cached_property
    def score(self) -> Score:
        """Ours."""
        return self.case.budgets[self.name].score(self.got)

    @cached_property
    def error(self) -> np.ndarray:
        """In float64; NaN is as wrong as can be."""
        return np.nan_to_num(np.abs(self.got - self.exact), nan=np.inf)

    @cached_property
    def error_of_baseline(self) -> np.ndarray:
        """The error of plain PyTorch."""
        return np.abs(self.case.baseline[self.name] - self.exact)


def _within(judged: Judged, absolute: float, relative: float) -> float:
    return worst_share(judged.error, absolute + relative * np.abs(judged.exact))


def _by_flash_attention(judged: Judged) -> float:
    exact = torch.from_numpy(judged.exact).to(TORCH[judged.case.dtype])
    lost = float((exact + 0.3 - 0.3 - exact).abs().double().max()) if exact.numel() else 0.0
    return worst_share(judged.error, FLASH * judged.error_of_baseline.max(initial=0.0) + 2 * lost)


def _by_pytorch_factors(judged: Judged) -> float:
    absolute, relative = DEFAULTS[judged.case.dtype]
    factor, exact = FACTORS.get(judged.name, min(FACTORS.values())), np.abs(judged.exact)
    share = np.divide(judged.error_of_baseline, exact, out=np.full_like(exact, relative), where=exact > 0)
    absolute = factor * max(absolute, judged.error_of_baseline.max(initial=0.0))
    return _within(judged, absolute, factor * max(relative, share.max(initial=0.0)))


RULES: dict[str, Callable[[Judged], float]] = {
    "ours": lambda judged: judged.score.budget_used,
    "assert_close": lambda judged: _within(judged, *PER_ELEMENT[judged.case.dtype]),
    "gradcheck": lambda judged: _within(judged, *GRADCHECK),
    "3x baseline": _by_flash_attention,
    "PyTorch's factors": _by_pytorch_factors,
}
"""The rules by name."""


def worst_of(gradients: Mapping[str, Judged]) -> dict[str, float]:
    """By each rule the worst gradient of a result."""
    return {rule: max(map(ratio_of, gradients.values())) for rule, ratio_of in RULES.items()}
