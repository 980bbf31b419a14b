"""What it costs: `pytest bench/bench_residual_norm.py`."""

from bench.face import measure


def test_residual_norm(benchmark, case):
    """A sum and a LayerNorm, on every peer."""
    measure(benchmark, case)
