"""What the suite itself costs: a call of the oracle and a budget for each step, an example of each claim, and a failure.

Steps have the sizes of the article's sequence; claims run on the fast implementation in float32. A failure is a whole `veriformer
verify` of an attention that is wrong everywhere, beside that of the right one. Processor time of all its processes is compared:
neighbours on the machine make a run longer, but do not add to it. How long a user waits for the first card is counted from the
first call, which is a probe's: the example that fails is found later.
"""

import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.step import PAPER
from bench.workloads import STEPS as TIMED
from bench.workloads import Workload
from properties.claims import CLAIMS
from properties.error_budget.budgets import COPIES, budget
from properties.implementations.impl import Impl
from properties.implementations.oracle import ORACLES, oracle
from properties.implementations.registry import built_in
from properties.run.subprocesses import started
from properties.steps import STEPS
from properties.verdict.judge import run_property
from reports.bench_records import Cost
from reports.records import finished

SIZES = {**PAPER, "layers": 1, "b": 1, "n": 16, "m": 16, "d_k": 64, "length": 4, "vocab": 1000}
NOTE = "one sequence of 16 tokens, 512 features, 8 heads, one layer a side, a vocabulary of 1000 tokens"
SECONDS = 0.2  # for each piece
EXAMPLES = 20  # of each property
SOURCE = """
import math
import os
import torch

CALLED = os.path.join(os.path.dirname(__file__), "called")

def right(Q, K, V, mask=None, more=0):
    called()
    scores = Q @ K.mT / math.sqrt(Q.shape[-1] + more)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ V

def called():
    if not os.path.exists(CALLED):
        open(CALLED, "x").close()

def nan(Q, K, V, mask=None):
    return right(Q, K, V, mask) * math.nan

def scale(Q, K, V, mask=None):
    return right(Q, K, V, mask, 1)

def exception(Q, K, V, mask=None):
    called()
    raise ValueError("not today")

def crash(Q, K, V, mask=None):
    called()
    os._exit(3)

def hang(Q, K, V, mask=None):
    called()
    while True:
        pass
"""
CARD = "╭"  # how one begins
WRONG = ("nan", "scale", "exception", "crash", "hang")


def measure(examples: int = EXAMPLES) -> Iterator[Cost]:
    """Every oracle, every budget, every claim."""
    for step in TIMED:
        if step in ORACLES:
            call = Workload(step, step, SIZES).calls(seed=0)[0]
            yield _cost("oracle", step, lambda _, step=step, call=call: oracle(step, *call.args, **call.kwargs))
        if step in STEPS and STEPS[step].kind == "float" and step not in COPIES:
            yield _of_budget(step)
    yield from _of_claims(examples)


def _of_budget(step: str) -> Cost:
    calls = [Workload(step, step, SIZES).calls(seed)[0] for seed in range(3)]  # budgets are cached: each needs a call of its own

    def allow(i: int) -> None:
        call = calls[i]
        budget(step, *call.args, dtype="float32", **call.kwargs).score(oracle(step, *call.args, **call.kwargs))

    return _cost("budget", step, allow, most=len(calls))


def _cost(piece: str, name: str, run: Callable[[int], Any], most: int = 1000) -> Cost:
    """As many repetitions as fit in the time."""
    started, repeats = time.perf_counter(), 0
    while repeats < most and (repeats == 0 or time.perf_counter() - started < SECONDS):
        run(repeats)
        repeats += 1
    seconds = (time.perf_counter() - started) / repeats
    return Cost(f"cost/{piece}/{name}", piece, name, seconds, 1 / seconds, repeats, NOTE)


def _of_claims(examples: int) -> Iterator[Cost]:
    impl = Impl(built_in("optimized"), "float32")
    of_claim: dict[str, list[Callable[..., object]]] = defaultdict(list)
    for step in dict.fromkeys(claim.step for claim in CLAIMS):
        for test in vars(import_module(f"properties.test_{step}")).values():
            prop = getattr(test, "property_of_claim", None)
            if prop and not prop.oracle_only and hasattr(test, "hypothesis"):
                of_claim[prop.claim].append(test)
    for claim, tests in of_claim.items():
        judgements = [run_property(test, impl, seed=0, examples=examples) for test in tests]
        seconds, drawn = sum(found.seconds for found in judgements), sum(found.generated for found in judgements)
        if drawn:
            yield Cost(f"cost/claim/{claim}", "claim", claim, seconds / drawn, drawn / seconds, drawn, "optimized, float32")


def failures(*options: str) -> Iterator[Cost]:
    """The right attention, then each wrong one with its ratio. `options` go to `verify`."""
    right = of_failure("right", options)
    yield right
    for name in WRONG:
        yield of_failure(name, options, right)


def of_failure(name: str, options: tuple[str, ...], right: Cost | None = None) -> Cost:
    """One run of `verify`; beside that of the right attention, where there is one.

    Raises RuntimeError for a run that does not end as it should: a wrong attention that passes has no cost.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(SOURCE, encoding="utf-8")
        target = ("verify", f"mine.py:{name}", "--as=attention", "--dtype=float32", "--run=run")
        command = [sys.executable, "-P", "-m", "veriformer", *target, *options]
        before = _processor_time()
        code, said, first_card = _shown(command, folder)
        seconds = _processor_time() - before
        expected = 0 if right is None else 1
        if code != expected:
            raise RuntimeError(f"verify mine.py:{name}: expected exit code {expected}, got {code}: {said[-500:]}")
        waited = first_card - (Path(folder) / "called").stat().st_mtime
        checks = sum(line["verdict"] != "UNSUPPORTED" for line in finished(Path(folder) / "run" / "verify.jsonl"))
    ratio = None if right is None else seconds / (right.seconds * right.repeats)
    cost, wait = f"{ratio or 1:.2f} times the right attention's processor time", f"first card {waited:.1f} s after the first call"
    note = "attention in float32, a check" if ratio is None else f"{cost}, {wait}"
    return Cost(f"cost/failure/{name}", "failure", name, seconds / checks, checks / seconds, checks, note, ratio)


def _shown(command: list[str], folder: str) -> tuple[int, str, float]:
    """A run's exit code, its last words, and when its first card was on the screen (NaN: never)."""
    first_card, lines = math.nan, []
    options = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with started(command, **options) as process:
        for line in process.stdout or ():
            if CARD in line and math.isnan(first_card):
                first_card = time.time()
            lines.append(line)
        code = process.wait()
    return code, "".join(lines), first_card


def _processor_time() -> float:
    """Of all our children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
