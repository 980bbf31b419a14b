"""What the suite itself costs: a call of the oracle and a budget for each step, and how many examples a second each claim judges.

Sizes are those of the workloads' steps at the length of the article's sentence; claims run on the fast implementation in float32.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from bench.step import PAPER
from bench.workloads import STEPS as TIMED
from bench.workloads import Workload
from properties.claims import CLAIMS
from properties.error_budget.budgets import COPIES, budget
from properties.implementations.impl import Subject
from properties.implementations.oracle import ORACLES, oracle
from properties.implementations.registry import built_in
from properties.steps import STEPS
from properties.verdict.judge import run_property
from reports.bench_records import Cost

SENTENCE = {**PAPER, "layers": 1, "b": 1, "n": 16, "m": 16, "d_k": 64, "length": 4, "vocab": 1000}
SECONDS = 0.2  # for each piece
EXAMPLES = 20  # of each property


def measure(examples: int = EXAMPLES) -> Iterator[Cost]:
    """Every oracle, every budget, every claim, one line after another."""
    for step in TIMED:
        if step in ORACLES:
            yield _of_oracle(step)
        if step in STEPS and STEPS[step].kind == "float" and step not in COPIES:
            yield _of_budget(step)
    yield from _of_claims(examples)


def _of_oracle(step: str) -> Cost:
    call = Workload(step, step, SENTENCE).calls(seed=0)[0]
    return _cost("oracle", step, lambda _: oracle(step, *call.args, **call.kwargs))


def _of_budget(step: str) -> Cost:
    workload = Workload(step, step, SENTENCE)
    calls = [workload.calls(seed)[0] for seed in range(3)]  # a budget is remembered, so each needs a call of its own

    def allow(i: int) -> None:
        call = calls[i]
        budget(step, *call.args, dtype="float32", **call.kwargs).score(oracle(step, *call.args, **call.kwargs))

    return _cost("budget", step, allow, most=len(calls))


def _cost(piece: str, name: str, run: Callable[[int], Any], most: int = 1000) -> Cost:
    """So many repetitions as fit in the time, the first apart."""
    started, repeats = time.perf_counter(), 0
    while repeats < most and (repeats == 0 or time.perf_counter() - started < SECONDS):
        run(repeats)
        repeats += 1
    seconds = (time.perf_counter() - started) / repeats
    note = "one sentence of 16 words, 512 features, 8 heads, one layer a side, 1000 words in the dictionary"
    return Cost(f"cost/{piece}/{name}", piece, name, seconds, 1 / seconds, repeats, note)


def _of_claims(examples: int) -> Iterator[Cost]:
    subject = Subject(built_in("optimized"), "float32")
    of_claim: dict[str, list[Callable[..., object]]] = defaultdict(list)
    for step in dict.fromkeys(claim.step for claim in CLAIMS):
        for test in vars(import_module(f"properties.test_{step}")).values():
            prop = getattr(test, "property_of_claim", None)
            if prop and not prop.oracle_only and hasattr(test, "hypothesis"):
                of_claim[prop.claim].append(test)
    for claim, tests in of_claim.items():
        judgements = [run_property(test, subject, seed=0, examples=examples) for test in tests]
        seconds, drawn = sum(found.seconds for found in judgements), sum(found.generated for found in judgements)
        if drawn:
            yield Cost(f"cost/claim/{claim}", "claim", claim, seconds / drawn, drawn / seconds, drawn, "optimized, float32")
