"""Shares of the machine's limits, and exponents of growth."""

import numpy as np
import pytest

from bench.analysis.growth import fitted_exponent, local_exponents
from bench.analysis.roofline import best_of, share
from reports.bench_records import Roof


def roof(limit: str, rate: float, **size: int) -> Roof:
    """A limit that was measured."""
    return Roof(f"roof/{limit}/{size}", limit, "float32", "cpu", 1, size, rate, rate)


ROOFS = [
    roof("products", 50e9, rows=16, inner=16, columns=16),
    roof("products", 100e9, rows=1024, inner=1024, columns=1024),
    roof("read", 80e9, bytes=2**20),
    roof("read", 20e9, bytes=2**26),
]


def test_the_limit_that_binds_is_the_one_that_takes_longer():
    """Flops over the best product rate, or traffic over the speed of a working set no larger than it."""
    by_products = share(ROOFS, flops=100e9, traffic=1e6, dtype="float32", threads=1, ns=2e9)
    by_memory = share(ROOFS, flops=1e3, traffic=20e9, dtype="float32", threads=1, ns=2e9)

    assert by_products == pytest.approx((0.5, "products", False))
    assert by_memory == pytest.approx((0.5, "memory", False))


def test_a_point_above_the_roof_is_flagged():
    """Faster than the machine is an error."""
    found = share(ROOFS, flops=100e9, traffic=1e6, dtype="float32", threads=1, ns=0.5e9)

    assert found is not None
    assert found.above


def test_no_share_without_its_limits():
    """Another dtype's product rate says nothing."""
    assert share(ROOFS, 1e9, 1e6, "bfloat16", 1, 1e9) is None


def test_of_several_passes_the_best_counts():
    """A limit is the best ever seen."""
    assert best_of([roof("read", 1.0, bytes=1), roof("read", 3.0, bytes=1), roof("read", 2.0, bytes=1)])[0].rate == 3.0


def test_local_and_fitted_exponents_of_a_fixed_cost_and_a_square():
    """Between short lengths fixed costs rule; the fit covers the stated range only, and lies within its interval."""
    lengths = [64, 128, 256, 512, 1024, 2048]
    values = [1e5 + n**2 for n in lengths]
    rng = np.random.default_rng(0)
    by_process = [[value * rng.normal(1, 0.01) for value in values] for _ in range(5)]

    local = local_exponents(lengths, values)
    fitted = fitted_exponent(lengths, values, by_process)

    assert local[0].exponent < 0.2
    assert local[-1].exponent > 1.85
    assert (fitted.first, fitted.last) == (512, 2048)
    assert fitted.low < fitted.exponent < fitted.high
    assert 1.7 < fitted.exponent < 2.0


def test_two_lengths_are_not_fitted():
    """A line through two points has no residual: it would look certain."""
    assert fitted_exponent([512, 1024], [1.0, 4.0], []) is None
