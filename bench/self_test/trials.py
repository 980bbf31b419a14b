"""The timer's test of itself (`veriformer bench --self-test`): the same code against itself, hundreds of times.

A trial is a small benchmark of its own: fresh processes, in each so many rounds of three entries in random order: a piece of
work, the same again, and the same with 5 % more of it (21 units for 20). Then the same three one after another in blocks, as
pytest-benchmark times them. Over all trials:

    coverage   how often the 95 % interval of the work against itself contains 1, with its Wilson interval
    width      high / low − 1 of that interval, median
    power      how often the 5 % are found: the whole interval above 1, and above the margin's band

Every trial is on disk when it is over, and a run that was broken off goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bench.analysis.statistics import CONFIDENCE, CPU_MARGIN, Interval, log_ratios, student
from bench.runner.machine import fresh_environment
from properties.run.run_folder import append, environment
from properties.run.subprocesses import guarded, run, started
from reports.records import finished

FILE = "self_test.jsonl"
BURST = 0.05  # seconds a neighbour works, then rests as long
RESAMPLES = 1000
FLAGGED = 0.05  # `--benchmark-compare-fail=median:5%`


class Row(NamedTuple):
    """What one design did over all trials."""

    design: str
    trials: int
    covered: int
    coverage_low: float
    coverage_high: float
    width: float
    above_one: float
    above_margin: float


# All trials -----------------------------------------------------------------------------------------------------------


def trial(number: int, processes: int, rounds: int) -> dict[str, Any]:
    """Some fresh processes, one after another."""
    started = time.time()
    found = [_fresh(1000 * number + i, rounds) for i in range(processes)]
    pressure = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"kind": "self_test", "trial": number, "processes": found, "load": pressure, "seconds": time.time() - started}


def _fresh(seed: int, rounds: int) -> dict[str, Any]:
    one = [sys.executable, "-P", "-m", "bench.self_test.process", str(seed), str(rounds)]
    done = run(one, env=fresh_environment(1), stdout=subprocess.PIPE)
    done.check_returncode()
    return json.loads(done.stdout)


@contextmanager
def neighbours(count: int) -> Iterator[list[int]]:
    """Other programs on the machine, which work and rest in turns: their process numbers."""
    busy = f"import time\nwhile True:\n end = time.time() + {BURST}\n while time.time() < end: pass\n time.sleep({BURST})"
    with ExitStack() as running:
        yield [running.enter_context(started([sys.executable, "-c", busy])).pid for _ in range(count)]


def collect(folder: Path, trials: int, processes: int, rounds: int) -> list[dict[str, Any]]:
    """The trials on disk and as many more as are missing. Raises ValueError for a folder with trials of other sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    done = finished(path)
    if done and len(done[0]["processes"]) != processes:
        raise ValueError(f"--into {folder}: it holds trials of {len(done[0]['processes'])} processes, not {processes}")
    started, before = time.time(), len(done)
    for number in range(len(done), trials):
        line = trial(number, processes, rounds)
        append(path, line)
        done.append(line)
        each = (time.time() - started) / (len(done) - before)
        to_go = each * (trials - len(done)) / 60
        print(f"trial {len(done)} of {trials}: {each:.1f} s each, {to_go:.0f} min to go", file=sys.stderr, flush=True)
    return done[:trials]


# What they say --------------------------------------------------------------------------------------------------------


def bootstrap(processes: Sequence[np.ndarray], seed: int = 0) -> Interval:
    """The other candidate: processes drawn with replacement, in each its rounds, the median of the medians; percentiles.

    It counts the rounds' noise twice, so it covers more than it says and is wider.
    """
    rng = np.random.default_rng(seed)
    estimates = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(len(processes), size=len(processes))
        estimates[i] = np.median([np.median(rng.choice(processes[p], len(processes[p]))) for p in drawn])
    low, high = np.exp(np.quantile(estimates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    middle = float(np.exp(np.median([np.median(rounds) for rounds in processes])))
    return Interval(middle, float(low), float(high))


DESIGNS: dict[str, tuple[str, Callable[[list[np.ndarray]], Interval]]] = {
    "pairs, Student": ("pairs", student),
    "pairs, bootstrap": ("pairs", bootstrap),
    "blocks, Student": ("blocks", student),
}
"""What is timed beside what, and the interval."""


def row(design: str, trials: Sequence[dict[str, Any]]) -> Row:
    """What one of the DESIGNS makes of the trials."""
    kind, interval = DESIGNS[design]
    same = [interval(_logs(found, kind, "again")) for found in trials]
    more = [interval(_logs(found, kind, "more")) for found in trials]
    covered = sum(bool(found.contains_one) for found in same)
    wilson = stats.binomtest(covered, len(trials)).proportion_ci(method="wilson")
    width = float(np.median([(found.high or np.inf) / (found.low or np.nan) - 1 for found in same]))
    lows = np.array([found.low for found in more], dtype=float)
    found = float(np.mean(lows > 1)), float(np.mean(lows > 1 + CPU_MARGIN))
    return Row(design, len(trials), covered, float(wilson.low), float(wilson.high), width, *found)


def _logs(found: dict[str, Any], kind: str, entry: str) -> list[np.ndarray]:
    if kind == "blocks":  # a block has no rounds: one ratio of medians a process
        return [np.log([np.median(p[kind][entry]) / np.median(p[kind]["work"])]) for p in found["processes"]]
    return [log_ratios(p[kind][entry], p[kind]["work"]) for p in found["processes"]]


def flagged(trials: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """How often one process's block medians call identical code 5 % slower or faster; how often they find the true 5 %."""
    single = [found["processes"][0]["blocks"] for found in trials]
    ratio = {name: np.array([np.median(p[name]) / np.median(p["work"]) for p in single]) for name in ("again", "more")}
    false = np.maximum(ratio["again"], 1 / ratio["again"]) > 1 + FLAGGED
    return float(false.mean()), float((ratio["more"] > 1 + FLAGGED).mean())


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that is published of these trials."""
    false, found = flagged(trials)
    return {
        "designs": [row(design, trials)._asdict() for design in DESIGNS],
        "medians of blocks in one process": {"identical flagged": false, "5 % found": found},
        "trials": len(trials),
        "processes": len(trials[0]["processes"]),
        "rounds": len(trials[0]["processes"][0]["pairs"]["work"]),
        "minutes": sum(each["seconds"] for each in trials) / 60,
        "median load": float(np.median([each["load"] or np.nan for each in trials])),
        "environment": {name: value for name, value in environment().items() if name != "code"},  # trials may be of earlier code
    }


def report(found: dict[str, Any]) -> str:
    """The table that is printed."""
    lines = [f"{'design':18} {'coverage of 1':>26} {'width':>7} {'5 % above 1':>12} {'above margin':>13}"]
    for row in (Row(**each) for each in found["designs"]):
        share = f"{row.covered}/{row.trials} [{row.coverage_low:.1%}, {row.coverage_high:.1%}]"
        lines.append(f"{row.design:18} {share:>26} {row.width:7.2%} {row.above_one:12.0%} {row.above_margin:13.0%}")
    single = found["medians of blocks in one process"]
    false, true = single["identical flagged"], single["5 % found"]
    sizes = f"{found['trials']} trials of {found['processes']} processes and {found['rounds']} rounds, {found['minutes']:.1f} min"
    lines += [
        "medians of blocks in one process, as pytest-benchmark's --benchmark-compare-fail=median:5% has them:",
        f"  identical code flagged in {false:.0%}, the true 5 % found in {true:.0%} of trials",
        f"{sizes} on {found['environment']['cores']} cores, median load {found['median load']:.1f}",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Do the missing trials and print what all of them say."""
    parser = argparse.ArgumentParser(prog="python -m bench.self_test.trials", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--neighbours", type=int, default=2, help="busy programs beside the trials")
    parser.add_argument("--into", type=Path, default=Path("runs/self_test"))
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    given = parser.parse_args(arguments)
    if min(given.trials, given.rounds) < 1 or given.processes < 2:
        parser.error("expected at least one trial, one round and two processes")

    try:
        with neighbours(given.neighbours):
            trials = collect(given.into, given.trials, given.processes, given.rounds)
    except ValueError as error:
        parser.error(str(error))
    found = summary(trials)
    print(json.dumps(found, ensure_ascii=False, indent=1) if given.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
