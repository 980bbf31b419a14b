"""What it costs: `pytest bench/bench_attention.py`."""

from bench.face import measure


def test_attention(benchmark, case):
    """Attention, from 64 words on, on every peer."""
    measure(benchmark, case)
