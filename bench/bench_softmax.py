"""What it costs: `pytest bench/bench_softmax.py`."""

from bench.face import measure


def test_softmax(benchmark, case):
    """The weights of every head, on every peer."""
    measure(benchmark, case)
