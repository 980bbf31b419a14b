"""What it costs: `pytest bench/bench_transformer.py`."""

from bench.face import measure


def test_transformer(benchmark, case):
    """The article's forward pass, on every peer."""
    measure(benchmark, case)
