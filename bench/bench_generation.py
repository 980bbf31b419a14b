"""What it costs: `pytest bench/bench_generation.py`."""

from bench.face import measure


def test_generation(benchmark, case):
    """Greedy writing of 64 tokens, on every peer."""
    measure(benchmark, case)
