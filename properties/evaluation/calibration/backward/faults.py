"""Graded faults of a backward: a correct one with one term too large or too small by a given share, on inputs that show it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from properties.evaluation.calibration.backward.cases import Arguments
from properties.evaluation.calibration.backward.low_precision import Gradients, LowPrecisionBackward
from properties.evaluation.calibration.cases import Draw, Nested
from properties.evaluation.calibration.faults import Mistake


def _term(step: str, term: str, witness: Callable[[int], Arguments], sign: int = 1) -> Callable[[float], Mistake]:
    """A term that is taken 1 − e or 1 + e times: `term` is the argument of the backward `step` that says how many times."""

    def of_size(e: float) -> Mistake:
        def wrong(arithmetic: LowPrecisionBackward, args: tuple[Any, ...], kwargs: Nested) -> Gradients:
            return arithmetic.run(step, args, {**kwargs, term: 1.0 + sign * e})

        return Mistake(f"{term} × (1 {'+' if sign > 0 else '−'} {e:.3g})", step, witness, wrong)

    return of_size


def _heads(seed: int) -> Arguments:
    """Two heads of 32 tokens, whose scores reach 6 or so."""
    draw = Draw(seed, 32)
    dO, Q, K, V = (draw.numbers(1, 2, 32, 16, magnitude=2.0) for _ in range(4))
    return (dO, Q, K, V, None), {}


def _quiet(seed: int) -> Arguments:
    """The same, where the second head says and is told sixteen times less than the first."""
    (dO, Q, K, V, mask), kwargs = _heads(seed)
    loud = np.array([1.0, 2.0**-4])[:, None, None]
    return (dO * loud, Q, K, V * loud, mask), kwargs


def _scores(seed: int) -> Arguments:
    draw = Draw(seed, 33)
    return (draw.numbers(16, 64, magnitude=2.0), draw.numbers(16, 64, magnitude=4.0)), {}


def _rows(seed: int) -> Arguments:
    """Gradients that have a mean."""
    draw = Draw(seed, 34)
    norm = draw.norm(64)
    return (0.5 + draw.numbers(1, 16, 64), draw.numbers(1, 16, 64, magnitude=2.0)), {"gain": norm["gain"], "eps": 1e-5}


def _maps(seed: int) -> Arguments:
    draw = Draw(seed, 35)
    weights = draw.feed_forward(16, 32)
    kept = {name: weights[name] for name in ("W_1", "b_1", "W_2")}
    return (draw.numbers(1, 16, 16, magnitude=2.0), draw.numbers(1, 16, 16, magnitude=2.0)), {**kept, "activation": "gelu"}


GRADED: dict[str, Callable[[float], Mistake]] = {
    "row sums": _term("attention_backward", "row_sum", _heads, -1),
    "scale of dK": _term("attention_backward", "of_keys", _heads),
    "one head": _term("attention_backward", "of_second_head", _heads),
    "one quiet head": _term("attention_backward", "of_second_head", _quiet),
    "row sums of softmax": _term("softmax_backward", "row_sum", _scores, -1),
    "mean of a norm's gradients": _term("layer_norm_backward", "mean_of_gradients", _rows, -1),
    "slope of GELU": _term("feed_forward_backward", "slope", _maps),
}
"""By name. "row sums": dS = P ∘ (dP − (1 − e) · D)."""
