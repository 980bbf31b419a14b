"""What it costs: `pytest bench/bench_feed_forward.py`."""

from bench.face import measure


def test_feed_forward(benchmark, case):
    """Two linear maps, token by token, on every peer."""
    measure(benchmark, case)
