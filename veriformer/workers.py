"""A pytest plugin of the engine's runs: how many processes a run is worth. Loaded by `-p` where a request leaves that open."""

import os

import pytest

from veriformer.planned import Plan
from veriformer.pytest_plugin import plan_of

WORTH_MORE = 8  # steps × dtypes × the part of the claims asked for; below it, a second process costs more than it saves
MOST = 4


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """0, for this very process, or how many others; these must not all compute on all cores."""
    plan = plan_of(config)
    plan.check()
    count = workers(plan)
    if count == 1:
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    plan.close()
    return count


def workers(plan: Plan) -> int:
    """One a core where calls are short and on the CPU, at most four; one on another device, and where there is little to do."""
    from properties.claims import CLAIMS

    adapters = [plan.adapter(name) for name in plan.implementations]
    asked = len(plan.claims) / len(CLAIMS) if plan.claims else 1.0
    worth = asked * sum(len(adapter.steps) * len(plan.options.dtypes or adapter.dtypes) for adapter in adapters)
    if worth < WORTH_MORE or plan.devices != ("cpu",):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)
