"""Whole runs: what was planned is there, what dies is named, what was killed goes on, and nothing is overwritten unasked."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.analysis.show import exit_code
from bench.analysis.statistics import Interval, verdict
from bench.runner.records import FILE, records
from bench.runner.run import Run, run
from bench.runner.subprocesses import NotJudged, Silent, lines_of
from properties.run import run_folder
from reports.bench_records import VERDICTS, Cell, Comparison, Process

TINY = ("softmax.8x8x64@b=1+h=1+n=8+m=8", "attention.64@n=8+m=8+h=1+d_k=4")
PEERS = ("reference", "optimized")
QUICK = {"peers": PEERS, "threads": (1,), "processes": 2, "adapt": False}
CANDIDATE = """
import os, torch
calls = []

def right(Q, K, V, mask=None):
    return torch.softmax(Q @ K.mT / Q.shape[-1] ** 0.5, dim=-1) @ V

def unscaled(Q, K, V, mask=None):
    return torch.softmax(Q @ K.mT, dim=-1) @ V

def dies(Q, K, V, mask=None):
    calls.append(1)
    if len(calls) > 3:
        os._exit(7)
    return right(Q, K, V)

def raises(Q, K, V, mask=None):
    raise RuntimeError("not today")
"""


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    """A second for each group: nobody asks here how exact the times are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_seconds", lambda *_: 1.0)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole small run, and what it said."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    return folder, run(folder, TINY, time_limit_s=300, **QUICK)


def cells(folder: Path) -> dict[str, Cell]:
    """The cells of a run by id, as they are on disk."""
    return {cell.id: cell for cell in records(folder, Cell)}


def test_every_planned_cell_is_measured(finished):
    """The manifest's plan, the lines on disk and the summary name the same cells; each has a time and a verdict of its gate."""
    folder, summary = finished
    planned = json.loads((folder / "manifest.json").read_text())["bench_planned"]

    assert planned == [cell.id for cell in summary.cells]
    assert set(planned) == set(cells(folder))
    for cell in cells(folder).values():
        assert cell.status == "measured", cell.message
        assert cell.gate.verdict == "PASS"
        assert cell.median_ns > 0
        assert cell.processes == 2


def test_the_samples_say_how_they_were_taken(finished):
    """Every peer and the control in every round, threads as asked for, load before and after, nobody beside another's threads."""
    folder, _ = finished
    found = records(folder, Process)

    assert len(found) == 4
    for process in found:
        assert [timed.peer for timed in process.timed] == ["reference", "optimized", "torch.eager", "torch.eager again"]
        orders = zip(*(timed.order for timed in process.timed), strict=True)
        assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
        assert process.pools[0] == "torch: 1"
        assert len(process.load["load"]) == 2
        assert process.disturbed == {}


def test_lines_survive_the_disk(finished):
    """What is read back is what was written, and derived lines follow from the measurements alone."""
    folder, summary = finished
    comparisons = {line.id: line for line in records(folder, Comparison)}

    for line in summary.comparisons:
        on_disk = comparisons[line.id]
        assert on_disk.ratio == line.ratio
        assert on_disk.verdict in VERDICTS
        if on_disk.verdict != "untrusted":
            interval = Interval(line.ratio, line.low, line.high)
            assert verdict(interval, line.margin) == on_disk.verdict


def test_a_finished_run_is_not_measured_again(finished):
    """Started again on its folder it adds no measurement, and says the same."""
    folder, summary = finished
    before = len(records(folder, Process))

    again = run(folder, TINY, time_limit_s=300, **QUICK)

    assert len(records(folder, Process)) == before
    assert [cell.median_ns for cell in again.cells] == [cell.median_ns for cell in summary.cells]


@pytest.mark.parametrize("change", [{"seed": 1}, {"peers": ("optimized",)}, {"processes": 3}])
def test_a_run_is_continued_only_as_it_was_begun(finished, change):
    """Other settings in the same folder are refused by name."""
    folder, _ = finished

    with pytest.raises(ValueError, match=next(iter(change))):
        run(folder, TINY, time_limit_s=300, **{**QUICK, **change})


def test_a_run_of_other_code_is_not_continued(finished, monkeypatch):
    """Two codes in one folder would be compared as one."""
    folder, _ = finished
    monkeypatch.setattr(run_folder, "code_hash", lambda: "another")

    with pytest.raises(ValueError, match="other code"):
        run(folder, TINY, time_limit_s=300, **QUICK)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"baseline": "torch.eagre"}, "torch.eager"),
        ({"peers": ("optimised",)}, "optimized"),
        ({"dtypes": ("float31",)}, "float32"),
        ({"device": "tpu"}, "cpu or cuda"),
        ({"threads": (0,)}, "at least 1"),
        ({"processes": 1}, "at least 2"),
        ({"as_step": "attend"}, "attention"),
    ],
)
def test_a_typing_mistake_is_answered_with_what_was_expected(tmp_path, settings, said):
    """And nothing is written."""
    with pytest.raises(ValueError, match=said):
        run(tmp_path / "run", TINY, **settings)

    assert not (tmp_path / "run").exists()


def test_whoever_is_wrong_or_dies_has_no_speed_and_stops_nobody(tmp_path, monkeypatch):
    """A wrong candidate gets its claim, one that raises its error, one that exits its exit code; the right one gets a time."""
    (tmp_path / "mine.py").write_text(CANDIDATE)
    monkeypatch.chdir(tmp_path)
    mine = tuple(f"mine:{name}" for name in ("right", "unscaled", "dies", "raises"))

    summary = run(tmp_path / "run", TINY[1], 300, peers=mine, as_step="attention", threads=(1,), processes=2, adapt=False)

    status = {cell.peer.removeprefix("mine:"): cell for cell in summary.cells}
    assert status["right"].status == "measured"
    assert status["torch.eager"].status == "measured"
    assert (status["unscaled"].status, status["unscaled"].gate.claim) == ("wrong", "A6")
    assert status["unscaled"].median_ns is None
    assert status["dies"].status == "failed"
    assert "exited with code 7" in status["dies"].message
    assert "not today" in status["raises"].message
    assert exit_code(summary) == 1
    for left in ([status["right"], status["raises"]], [status["right"], status["unscaled"]]):
        assert exit_code(replace(summary, cells=left)) == 1
    assert exit_code(replace(summary, cells=[status["right"]])) == 0


def started(folder: Path) -> subprocess.Popen:
    """A run of one workload, in a process that can be killed."""
    code = (
        "import sys; from pathlib import Path; from bench.runner.run import run; "
        f"run(Path({str(folder)!r}), {TINY[0]!r}, time_limit_s=300, peers={PEERS!r}, threads=(1,), processes=2, adapt=False)"
    )
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path):
    """SIGTERM and SIGKILL at random moments, also in the middle of a line: nothing finished is lost or done twice."""
    folder, seen = tmp_path / "killed", 0
    moments = random.Random(0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = started(folder)
        time.sleep(moments.uniform(1.0, 8.0))
        process.send_signal(number)
        process.wait()
        kept = len(records(folder, Process))
        assert kept >= seen
        seen = kept
    if (folder / FILE).exists():
        with (folder / FILE).open("a") as file:
            file.write('{"schema": 2, "kind": "bench", "what": "process", "id": "torn')
    assert started(folder).wait() == 0

    assert set(cells(folder)) == set(json.loads((folder / "manifest.json").read_text())["bench_planned"])
    assert all(cell.status == "measured" for cell in cells(folder).values())
    assert len({process.id for process in records(folder, Process)}) == 2


def test_a_process_that_cannot_start_is_an_error_and_no_endless_loop(tmp_path, monkeypatch):
    """The last line of its error stream is passed on."""
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(RuntimeError, match="exited with code 1"):
        run(tmp_path / "run", TINY, time_limit_s=300, **QUICK)


def test_what_had_no_time_is_missing_and_red(tmp_path):
    """A time limit that is over before it began leaves every planned cell missing."""
    summary = run(tmp_path / "run", TINY, time_limit_s=1e-6, **QUICK)

    assert {cell.status for cell in summary.cells} == {"missing"}
    assert set(cells(tmp_path / "run")) == {cell.id for cell in summary.cells}


def test_who_takes_too_long_is_missing_and_measured_when_there_is_time(tmp_path, monkeypatch):
    """The others have their times; the run taken up again, by then it is quick, measures the one that was missing."""
    (tmp_path / "mine.py").write_text(CANDIDATE + "\n\ndef sleeps(*given):\n    import time\n    time.sleep(1000)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.runner.run.LEAST_SILENCE", 8.0)
    asked = {"peers": ("mine:right", "mine:sleeps"), "as_step": "attention", "threads": (1,), "processes": 2, "adapt": False}

    status = {cell.peer: cell for cell in run(tmp_path / "run", TINY[1], 30, **asked).cells}

    assert status["mine:right"].status == status["torch.eager"].status == "measured"
    assert status["mine:sleeps"].status == "missing"
    assert (
        status["mine:sleeps"].message == "no answer within 8 s: one call may take a quarter of the time limit, and 8 s in any case"
    )

    (tmp_path / "mine.py").write_text(CANDIDATE + "\n\nsleeps = right\n")
    assert {cell.status for cell in run(tmp_path / "run", TINY[1], 30, **asked).cells} == {"measured"}
    assert len({process.id for process in records(tmp_path / "run", Process)}) == 2


def test_the_oracle_may_be_silent_for_longer_than_a_peer(tmp_path, monkeypatch):
    """What it takes to judge a large result is not the peer's time."""
    says = 'import time\nprint(\'{"at": ["group", "peer"], "judging": true}\', flush=True)\ntime.sleep(4)\n'
    (tmp_path / "judges.py").write_text(says + "print('{\"process\": {}}', flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines = lines_of({"threads": 1}, silence=3.0, module="judges")

    assert [next(lines), next(lines)] == [{"at": ["group", "peer"], "judging": True}, {"process": {}}]
    with pytest.raises(Silent, match="no answer within 3 s"):
        next(lines)

    monkeypatch.setattr("bench.runner.subprocesses.SILENCE", 2.0)
    with pytest.raises(NotJudged, match="the oracle did not judge what it gave within 2 s"):
        list(lines_of({"threads": 1}, silence=3.0, module="judges"))


def test_a_run_joins_the_folder_of_a_verification(tmp_path):
    """The manifest keeps what was planned there, and gets the planned cells besides."""
    run_folder.create(tmp_path, {"planned": [{"claim": "A5"}], "environment": run_folder.environment(), "seed": 0})

    run(tmp_path, TINY[0], time_limit_s=1e-6, **QUICK)

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["planned"] == [{"claim": "A5"}]
    assert len(manifest["bench_planned"]) == 3
