"""`pytest bench` runs the benchmarks: asked for by name, they are not skipped as they are everywhere else."""

import os
from collections.abc import Iterator

import pytest
import torch

from bench.runner import machine
from bench.runner.pytest_adapter import cases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which workloads."""
    parser.addoption("--workloads", help="for `pytest bench`: names, families or sets, see `veriformer bench --list`")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take back the `--benchmark-skip` of the project's own options; one on the command line stays."""
    if "--benchmark-skip" not in config.invocation_params.args:
        config.option.benchmark_skip = False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every workload on every peer."""
    if "case" in metafunc.fixturenames:
        found = cases(metafunc.config.getoption("--workloads"))
        metafunc.parametrize("case", found, ids=[str(case) for case in found])


@pytest.fixture(autouse=True, scope="session")
def pinned() -> Iterator[None]:
    """Threads as OMP_NUM_THREADS says, else all cores; no gradients but for training, which switches them on."""
    machine.pin_threads(int(os.environ.get("OMP_NUM_THREADS", machine.cores())))
    with torch.no_grad():
        yield
