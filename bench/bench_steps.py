"""What each step costs: `pytest bench`, or some of it with `--workloads attention` or `-k optimized`."""

from bench.runner.pytest_adapter import measure


def test_step(benchmark, case):
    """One workload on one peer."""
    measure(benchmark, case)
