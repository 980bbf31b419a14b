"""What it costs: `pytest bench/bench_decoder.py`."""

from bench.face import measure


def test_decoder(benchmark, case):
    """One decoder layer, on every peer."""
    measure(benchmark, case)
