"""`pytest bench`: what each step costs (`--workloads attention` or `-k optimized` for some), and what a verdict costs."""

from itertools import count

import numpy as np
import pytest

from bench.runner.pytest_adapter import measure
from properties.error_budget.budgets import budget
from properties.inputs.parameters import dyadic

SIZES = {"Hypothesis (3 x 8 tokens x 8 features)": (1, 3, 8, 8), "2 heads x 64 tokens x 16 features": (1, 2, 64, 16)}


def test_step(benchmark, case):
    """One workload on one peer."""
    measure(benchmark, case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_budget(benchmark, size, dtype):
    """At most 20 ms where axes are at most 8, and 0.2 s for 2 heads of 64 tokens: escalation apart."""
    seeds = count(2)

    def verdict() -> float:
        seed = next(seeds) * 3  # a case of its own each time: budgets are remembered
        Q, K, V = (dyadic(seed + i, SIZES[size], 2.0) for i in range(3))
        allowed = budget("attention", Q, K, V, dtype=dtype)
        return allowed.score(allowed.exact * (1 + 2.0**-9 * (dtype == "bfloat16")), escalate=False).worst

    assert np.isfinite(benchmark(verdict))
