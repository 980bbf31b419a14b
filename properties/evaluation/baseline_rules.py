"""The usual rules, on the same data: what they say of a result or of a gradient, beside what ours says.

Each gives the size of an error as a multiple of what it allows: above 1 it rejects. A result has one array or, of a backward,
several; each is judged by itself.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from properties.error_budget.budgets import Budget, Score, budget, budgets
from properties.error_budget.simulate import bound
from properties.evaluation.calibration.backward.by_autograd import by_hand
from properties.evaluation.calibration.low_precision import LowPrecision
from properties.implementations.autograd import FORWARD
from properties.implementations.contract import envelope
from properties.implementations.impl import DTYPES as TORCH
from properties.steps import STEPS

PER_ELEMENT = {"float64": (1e-7, 1e-7), "float32": (1e-5, 1.3e-6), "bfloat16": (1e-5, 1.6e-2), "float16": (1e-5, 1e-3)}
"""`torch.testing.assert_close`: absolute and relative, by dtype (torch 2.13, its documented defaults)."""

TABLE = {"float64": (1e-7, 1e-7), "float32": (1e-6, 1e-4), "bfloat16": (1e-2, 1e-2), "float16": (5e-3, 5e-3)}
"""A fixed table: that of Hugging Face transformers' eager-against-SDPA tests on CPU (`tests/test_modeling_common.py`)."""

LIGER = {"float64": (1e-5, 1e-5), "float32": (1e-5, 1e-5), "bfloat16": (5e-2, 5e-2), "float16": (5e-2, 5e-2)}
"""Liger-Kernel's softmax and LayerNorm tests (`test/transformers/test_softmax.py`, `test_layer_norm.py`). Others have up to 2e-1 in
bfloat16. It tests neither float16 nor float64: these have bfloat16's and float32's."""

SOL_EXECBENCH, MATCHED = (1e-2, 1e-2), 0.99
"""SOL-ExecBench: absolute and relative in every dtype, and the share of elements that need to be within (no cap for the others)."""

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
    """A step, its arguments, and the dtype it is asked in; `probes` are exact results of named faults."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dtype: str
    probes: dict[str, np.ndarray] | None = None

    @cached_property
    def budgets(self) -> Mapping[str, Budget]:
        """Of each array of a result, by its name: one serves all implementations of the case."""
        if STEPS[self.step].results:
            return budgets(self.step, *self.args, dtype=self.dtype, **self.kwargs)
        name = "dS" if self.step in FORWARD else ""
        return {name: budget(self.step, *self.args, dtype=self.dtype, probes=self.probes, **self.kwargs)}

    @property
    def budget(self) -> Budget:
        """Of a result that is one array."""
        (one,) = self.budgets.values()
        return one

    @cached_property
    def plain(self) -> Mapping[str, np.ndarray]:
        """What plain eager code in the dtype gives, operator by operator: what some rules measure others by."""
        if self.step in FORWARD:
            return by_hand(self.step, self.args, self.kwargs, self.dtype)
        with np.errstate(all="ignore"):
            return {"": getattr(LowPrecision(self.dtype), self.step)(*self.args, **self.kwargs)}

    @cached_property
    def bound(self) -> np.ndarray:
        """The worst case, carried along through however many steps."""
        return bound(self.step, self.args, self.kwargs, envelope(self.dtype))

    def judged(self, gradients: Mapping[str, np.ndarray]) -> dict[str, "Judged"]:
        """Each gradient of a result, by its name."""
        return {name: Judged(self, got, name) for name, got in gradients.items()}


@dataclass(frozen=True)
class Judged:
    """One array of one result of one case."""

    case: Case
    got: np.ndarray
    name: str = ""

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
    def error_of_plain(self) -> np.ndarray:
        """The error of plain eager code."""
        return np.abs(self.case.plain[self.name] - self.exact)

    def beyond(self, absolute: float, relative: float) -> float:
        """The error in units of what these two allow."""
        return worst_share(self.error, absolute + relative * np.abs(self.exact))


def worst_share(error: np.ndarray, allowed: np.ndarray | float) -> float:
    """The largest error in units of what is allowed; no error is 0 even where nothing is allowed (2 × 0)."""
    with np.errstate(all="ignore"):
        return float(np.where(error == 0, 0.0, error / allowed).max(initial=0.0))


def _beyond_of_most(judged: Judged, absolute: float, relative: float, share: float) -> float:
    """As `beyond`, of all but the worst: so many elements need to be within."""
    ratios = np.sort(judged.error.ravel() / (absolute + relative * np.abs(judged.exact).ravel()))
    return float(ratios[max(0, math.ceil(share * ratios.size) - 1)]) if ratios.size else 0.0


def _by_flash_attention(judged: Judged) -> float:
    exact = torch.from_numpy(judged.exact).to(TORCH[judged.case.dtype])
    lost = float((exact + 0.3 - 0.3 - exact).abs().double().max()) if exact.numel() else 0.0
    return worst_share(judged.error, FLASH * judged.error_of_plain.max(initial=0.0) + 2 * lost)


def _by_pytorch_factors(judged: Judged) -> float:
    absolute, relative = DEFAULTS[judged.case.dtype]
    factor, exact = FACTORS.get(judged.name, min(FACTORS.values())), np.abs(judged.exact)
    share = np.divide(judged.error_of_plain, exact, out=np.full_like(exact, relative), where=exact > 0)
    absolute = factor * max(absolute, judged.error_of_plain.max(initial=0.0))
    return judged.beyond(absolute, factor * max(relative, share.max(initial=0.0)))


Rule = Callable[[Judged], float]

BOTH: dict[str, Rule] = {
    "ours": lambda judged: judged.score.budget_used,
    "assert_close": lambda judged: judged.beyond(*PER_ELEMENT[judged.case.dtype]),
}
RULES: dict[str, Rule] = BOTH | {
    "fixed table": lambda judged: judged.beyond(*TABLE[judged.case.dtype]),
    "2x baseline": lambda judged: worst_share(judged.error, 2 * float(judged.error_of_plain.max(initial=0.0))),
    "Liger-Kernel": lambda judged: judged.beyond(*LIGER[judged.case.dtype]),
    "SOL-ExecBench": lambda judged: _beyond_of_most(judged, *SOL_EXECBENCH, MATCHED),
    "worst-case bound": lambda judged: worst_share(judged.error, judged.case.bound),
}
"""The rules for results, by name."""
RULES_OF_GRADIENTS: dict[str, Rule] = BOTH | {
    "gradcheck": lambda judged: judged.beyond(*GRADCHECK),
    "3x baseline": _by_flash_attention,
    "PyTorch's factors": _by_pytorch_factors,
}
"""Those for gradients."""


def worst_of(gradients: Mapping[str, Judged]) -> dict[str, float]:
    """By each rule the worst gradient of a result."""
    return {rule: max(map(ratio_of, gradients.values())) for rule, ratio_of in RULES_OF_GRADIENTS.items()}
