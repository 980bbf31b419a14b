"""What it costs: `pytest bench/bench_encoder.py`."""

from bench.face import measure


def test_encoder(benchmark, case):
    """One encoder layer, on every peer."""
    measure(benchmark, case)
