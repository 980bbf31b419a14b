"""What one chunk of a backward's calibration finds: correct gradients that are judged, or a fault made smaller and smaller."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from properties.evaluation.baseline_rules import RULES_OF_GRADIENTS, Case, Judged, worst_of
from properties.evaluation.calibration import tally
from properties.evaluation.calibration.backward.cases import CASES, case_of
from properties.evaluation.calibration.backward.faults import GRADED
from properties.evaluation.calibration.backward.low_precision import LowPrecisionBackward
from properties.evaluation.calibration.backward.variants import correct_variants
from properties.verdicts import NotOffered

STEPS = tuple(CASES)
CHUNK = 16  # cases of one chunk
DISTINCT = {"float32": 23, "bfloat16": 8, "float16": 8}
"""About how many bit-different gradients the variants give of one case: each is one result."""


def correct(step: str, dtype: str, number: int, seed: int) -> dict[str, Any]:
    """Every gradient of every variant, each bit-different one once; of the cases with these numbers."""
    variants, found = correct_variants(), tally.Correct()
    for i in range(number * CHUNK, (number + 1) * CHUNK):
        case = case_of(step, dtype, seed, i)
        found.counts["cases"] += 1
        for variant, judged in _distinct(case, variants):
            ratios = {rule: ratio_of(judged) for rule, ratio_of in RULES_OF_GRADIENTS.items()}
            found.add(variant, (step, dtype, seed, i, judged.name), judged.score, ratios)
    return found.line()


def _distinct(case: Case, variants: dict[str, Any]) -> Iterator[tuple[str, Judged]]:
    """Each under the name of the first variant that gave it."""
    seen = set()
    for variant, backward in variants.items():
        try:
            gradients = backward(case.step, case.args, case.kwargs, case.dtype)
        except NotOffered:
            continue
        for name, judged in case.judged(gradients).items():
            key = name, hashlib.blake2b(np.ascontiguousarray(judged.got + 0.0).tobytes()).digest()  # −0 is 0
            if key not in seen:
                seen.add(key)
                yield variant, judged


def graded(kind: str, dtype: str) -> dict[str, Any]:
    """A fault on its witness inputs, made smaller and smaller; beside it correct plain implementations, eager and fused."""
    coarse, arithmetic = GRADED[kind](2.0**-6), LowPrecisionBackward(dtype)
    cases = [Case(coarse.step, *coarse.witness(seed), dtype) for seed in range(tally.SEEDS)]

    def wrong(size: float) -> Iterator[tally.Ratios]:
        fault = GRADED[kind](size)
        for case in cases:
            yield worst_of(case.judged(fault.wrong(arithmetic, case.args, case.kwargs)))

    modes = [LowPrecisionBackward(dtype, mode=mode) for mode in ("eager", "fused")]
    right = [case.judged(mode.run(case.step, case.args, case.kwargs)) for case in cases for mode in modes]
    return tally.graded(wrong, map(worst_of, right))
