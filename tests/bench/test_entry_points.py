"""The entry points of the benchmarks: `pytest bench`, `veriformer bench`, `veriformer doctor`, and the timer's self-test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.self_test import process
from bench.self_test import trials as trials_of
from bench.self_test.trials import flagged, report, row, summary
from veriformer.cli import main

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
"""Without the traces of a surrounding pytest-xdist, beside which pytest-benchmark measures nothing."""


def benchmarks(*options: str) -> subprocess.CompletedProcess:
    """`pytest bench` on one small workload."""
    small = ["bench/bench_steps.py::test_step", "--workloads", "softmax.8x8x64@b=1+h=1+n=8+m=8", "-q", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *small, *options]
    return subprocess.run(command, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False)


def test_asked_for_by_name_the_benchmarks_run(tmp_path):
    """pytest-benchmark's JSON has a group a workload, a string a peer, and flops, traffic and verdict beside the times."""
    done = benchmarks("--benchmark-json", str(tmp_path / "out.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert {"reference", "optimized", "torch.eager"} <= {each["extra_info"]["peer"] for each in found}
    for each in found:
        assert each["group"] == "softmax.8x8x64@b=1+h=1+n=8+m=8 float32 cpu"
        assert each["extra_info"]["verdict"] == "PASS"
        assert each["extra_info"]["bytes"] == 4 * 2 * 64
        assert each["extra_info"]["claim"] == "A5"


def test_a_skip_that_is_asked_for_stays():
    """`pytest bench --benchmark-skip` runs none."""
    done = benchmarks("--benchmark-skip")

    assert "passed" not in done.stdout
    assert "skipped" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workloads", "atention"], "attention"),
        (["--baseline", "torch.eagr"], "torch.eager"),
        (["--time-limit", "soon"], "90s, 5m or 1h"),
        (["--threads", "two"], "numbers such as 1,2"),
        (["--dtype", "float8"], "bfloat16"),
        (["--processes", "1"], "2"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    """Naming the option and what was expected; no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)

    answer = CliRunner().invoke(main, ["bench", *arguments])

    assert answer.exit_code == 2
    assert said in answer.output
    assert arguments[0] in answer.output
    assert "Traceback" not in answer.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["bench"], ["report"], ["run", "plan.json"]])
def test_the_old_name_of_the_time_limit_is_answered_with_the_new_one(command):
    """One line and exit code 2."""
    answer = CliRunner().invoke(main, [*command, "--budget", "5m"])

    assert answer.exit_code == 2
    assert answer.output == "Error: --budget: expected its new name, --time-limit 5m (a budget is an error's)\n"


def test_the_choices_are_listed():
    """Workloads with their flops, and peers with their steps."""
    answer = CliRunner().invoke(main, ["bench", "--list"])

    assert answer.exit_code == 0
    assert "transformer.article" in answer.output
    assert "torch.sdpa.flash" in answer.output


def test_a_time_limit_that_measures_nothing_is_red(tmp_path):
    """Exit code 5, and JSON that says which cells are missing."""
    options = ["--workloads", "softmax", "--time-limit", "0.000001s", "--run", str(tmp_path / "run"), "--json"]

    answer = CliRunner().invoke(main, ["bench", *options])

    assert answer.exit_code == 5
    assert {cell["status"] for cell in json.loads(answer.stdout)["cells"]} == {"missing"}


# The self-test --------------------------------------------------------------------------------------------------------


def invented(rng: np.random.Generator, *, bias: float = 0.0) -> dict:
    """A trial as it would be on a machine whose processes differ by half a per cent."""

    def samples(scale: float) -> list[float]:
        return list(1e6 * scale * np.exp(rng.normal(0, 0.03, 30)))

    def process() -> dict:
        layout = np.exp(rng.normal(bias, 0.005))
        pairs = {"work": samples(1), "again": samples(layout), "more": samples(1.05)}
        return {"pairs": pairs, "blocks": {name: list(np.array(times) * rng.uniform(0.8, 1.2)) for name, times in pairs.items()}}

    return {"trial": 0, "processes": [process() for _ in range(6)], "load": 1.0, "seconds": 1.0}


def test_coverage_width_and_power_are_those_of_the_trials():
    """Fair trials are covered and the 5 % are found; blocks that drift are wide and find little."""
    rng = np.random.default_rng(0)
    trials = [invented(rng) for _ in range(16)]

    pairs, blocks = (row(f"{kind}, Student", trials) for kind in ("pairs", "blocks"))
    false, _ = flagged(trials)

    assert pairs.coverage_high >= 0.95
    assert pairs.width < 0.05
    assert pairs.above_one > 0.9
    assert blocks.width > 3 * pairs.width
    assert blocks.above_one < pairs.above_one
    assert false > 0.3


def test_a_biased_timer_would_be_seen():
    """Were the second entry always 3 % slower, coverage would fall, and its interval lie below 95 %."""
    rng = np.random.default_rng(0)

    assert row("pairs, Student", [invented(rng, bias=0.03) for _ in range(12)]).coverage_high < 0.5


def test_a_process_times_both_designs():
    """So many rounds of all three entries, in pairs and in blocks."""
    found = process.one_process(seed=0, rounds=20)

    for design in ("pairs", "blocks"):
        assert {name: len(samples) for name, samples in found[design].items()} == {"work": 20, "again": 20, "more": 20}


def test_the_third_entry_has_a_twentieth_more_work(monkeypatch):
    """Counted, not timed: a process beside this one makes times what they like."""
    softmax_calls, exp = [], np.exp
    monkeypatch.setattr(process.np, "exp", lambda x: softmax_calls.append(1) or exp(x))
    counted = {}
    for name, units in process.ENTRIES.items():
        softmax_calls.clear()
        process.work(units)()
        counted[name] = len(softmax_calls)

    assert counted["work"] == counted["again"]
    assert counted["more"] == 1.05 * counted["work"]


def test_the_self_test_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """Two trials, then three: one more is measured, and the table speaks of three; other sizes in the folder are refused."""
    sizes = ["--processes", "2", "--rounds", "5", "--neighbours", "0", "--into", str(tmp_path)]
    monkeypatch.setattr(os, "environ", ONE_THREAD)
    trials_of.main(["--trials", "2", *sizes])
    first = (tmp_path / trials_of.FILE).read_text()

    assert trials_of.main(["--trials", "3", *sizes]) == 0

    assert (tmp_path / trials_of.FILE).read_text().startswith(first)
    assert "3 trials of 2 processes and 5 rounds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        trials_of.main(["--trials", "4", *sizes[2:], "--processes", "3"])

    trials_of.main(["--trials", "3", *sizes, "--json"])
    assert json.loads(capsys.readouterr().out)["trials"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--self-test", "--time-limit", "5m"], "--time-limit: expected without --self-test, which times work of its own"),
        (["--self-test", "--list"], "--self-test: expected without --list, which measures nothing"),
        (["--list", "--json"], "--json: expected without --list, which measures nothing"),
    ],
)
def test_an_option_that_would_be_given_for_nothing_is_refused(arguments, said):
    """Naming it, and what it does not go with."""
    answer = CliRunner().invoke(main, ["bench", *arguments])

    assert answer.exit_code == 2
    assert said in answer.output


def test_the_report_shows_the_designs_side_by_side():
    """Pairs, blocks and pytest-benchmark's own rule."""
    text = report(summary([invented(np.random.default_rng(1)) for _ in range(5)]))

    assert all(word in text for word in ("pairs, Student", "pairs, bootstrap", "blocks, Student", "median:5%"))
