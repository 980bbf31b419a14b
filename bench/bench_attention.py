"""What it costs: `pytest bench/bench_attention.py`."""

from bench.face import measure


def test_attention(benchmark, case):
    """Attention, from 64 tokens on, on every peer."""
    measure(benchmark, case)
