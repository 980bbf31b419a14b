"""What a failure costs: the whole verification of an attention that fails everywhere beside that of the right one.

Each is `veriformer verify` as a user starts it, with its starts, its candidate's processes and its counterexamples. Processor
time is compared, of all processes together: what neighbours take on the machine makes a run longer and not dearer.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from properties.run.run_folder import finished
from properties.run.subprocesses import run
from reports.bench_records import Cost

SOURCE = """
import math
import os
import torch

def right(Q, K, V, mask=None, more=0):
    scores = Q @ K.mT / math.sqrt(Q.shape[-1] + more)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ V

def nan(Q, K, V, mask=None):
    return right(Q, K, V, mask) * math.nan

def scale(Q, K, V, mask=None):
    return right(Q, K, V, mask, 1)

def exception(Q, K, V, mask=None):
    raise ValueError("not today")

def crash(Q, K, V, mask=None):
    os._exit(3)

def hang(Q, K, V, mask=None):
    while True:
        pass
"""
WRONG = ("nan", "scale", "exception", "crash", "hang")


def measure(*options: str) -> Iterator[Cost]:
    """The right attention, then each wrong one with its ratio. `options` go to `verify`."""
    right = _of("right", options)
    yield right
    for name in WRONG:
        yield _of(name, options, right)


def _of(name: str, options: tuple[str, ...], right: Cost | None = None) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(SOURCE, encoding="utf-8")
        target = ("verify", f"mine.py:{name}", "--as=attention", "--dtype=float32", "--run=run")
        before = _processor_time()
        done = run(
            [sys.executable, "-P", "-m", "veriformer", *target, *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = _processor_time() - before
        expected = 0 if right is None else 1
        if done.returncode != expected:
            raise RuntimeError(f"verify mine.py:{name}: expected exit code {expected}, got {done.returncode}: {done.stderr[-500:]}")
        checks = sum(line["verdict"] != "UNSUPPORTED" for line in finished(Path(folder) / "run" / "verify.jsonl"))
    ratio = None if right is None else seconds / (right.seconds * right.repeats)
    note = "attention in float32, a check" if ratio is None else f"{ratio:.2f} times the right attention's processor time"
    return Cost(f"cost/failure/{name}", "failure", name, seconds / checks, checks / seconds, checks, note, ratio)


def _processor_time() -> float:
    """Of all our children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
