"""What it costs: `pytest bench/bench_multi_head.py`."""

from bench.face import measure


def test_multi_head(benchmark, case):
    """Projections and heads, looking at another sequence, on every peer."""
    measure(benchmark, case)
