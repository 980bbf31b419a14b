"""Counts in place of times: what is counted, that it is counted alike, and that no wrong result has a count."""

import json
import shutil
from pathlib import Path

import pytest
import sample_runs
import torch
from click.testing import CliRunner

from bench.counters import callgrind
from bench.counters.counters import count
from bench.counters.counting import per_call
from bench.peers.base import Built
from bench.runner.records import FILE
from reports.compare import compared
from reports.findings import Findings
from reports.folders import read
from reports.merge import merged
from reports.render import render
from reports.summary import exit_code
from veriformer.cli import main

ROOT = Path(__file__).resolve().parents[2]
TINY = "attention.64@n=8+m=8+h=1+d_k=4"
CANDIDATE = """
import os, torch

def right(Q, K, V, mask=None):
    return torch.softmax(Q @ K.mT / Q.shape[-1] ** 0.5, dim=-1) @ V

def unscaled(Q, K, V, mask=None):
    return torch.softmax(Q @ K.mT, dim=-1) @ V

def dies(Q, K, V, mask=None):
    os._exit(7)
"""


@pytest.fixture
def without_valgrind(monkeypatch, tmp_path):
    """A machine that has none: counting is then a matter of seconds."""
    monkeypatch.setenv("PATH", str(tmp_path))


# What is counted -------------------------------------------------------------------------------------------------------


def test_operators_and_bytes_are_those_of_one_call():
    """64 float32 numbers are added and rectified: three operators, since relu calls clamp_min, and twice 256 bytes."""
    output, operators, allocated = per_call(Built(lambda X: (X + X).relu(), [(torch.ones(64),)], "", "float32"))

    assert output.tolist() == [2.0] * 64
    assert operators == 3
    assert allocated == 512


def test_what_is_not_torch_has_no_operators():
    """None, which is not 0."""
    assert per_call(Built(lambda X: X.numpy() + 1, [(torch.ones(4),)], "", "float32"))[1:] == (None, None)


def test_two_runs_count_alike(without_valgrind, tmp_path):
    """A run that was broken off goes on, and what it counts anew is the same; one of other settings is refused.

    Operators and bytes are equal; where valgrind is missing the instructions are, and the line says why.
    """
    folder, workloads, peers = tmp_path / "run", [TINY, "residual_norm.8x64@b=1+n=4"], ("optimized", "torch.eager")
    first = count(folder, workloads, peers=peers)
    whole = (folder / FILE).read_text().splitlines(keepends=True)
    (folder / FILE).write_text("".join(whole[:3]))  # one of the second workload's is missing

    again = count(folder, workloads, peers=peers)

    assert again == first
    assert (folder / FILE).read_text().splitlines(keepends=True) == whole
    assert [line.peer for line in first] == [*peers, *peers]
    for line in first:
        assert line.status == "measured"
        assert line.operators
        assert line.allocated_bytes
        assert line.instructions is None
        assert "not on PATH: valgrind" in line.message
    with pytest.raises(ValueError, match="name another folder"):
        count(folder, workloads, peers=("optimized",))


def test_a_wrong_result_has_no_counts_and_a_crash_is_its_own(without_valgrind, tmp_path, monkeypatch):
    """Exit code 1; the peer that ends its process is failed, and the others are counted all the same."""
    (tmp_path / "mine.py").write_text(CANDIDATE)
    monkeypatch.chdir(tmp_path)
    peers = ("mine:right", "mine:unscaled", "mine:dies", "optimized")
    options = ["--workloads", TINY, "--as", "attention", "--peers", ",".join(peers), "--run", str(tmp_path / "run"), "--json"]

    answer = CliRunner().invoke(main, ["bench", "--counters", *options])

    assert answer.exit_code == 1, answer.output
    found = {line["peer"]: line for line in json.loads(answer.stdout)["counters"]}
    assert [found[peer]["status"] for peer in peers] == ["measured", "wrong", "failed", "measured"]
    assert found["mine:unscaled"]["operators"] is None
    assert found["mine:unscaled"]["message"].startswith("A6: ")
    assert "code 7" in found["mine:dies"]["message"]
    assert found["mine:right"]["operators"] > found["optimized"]["operators"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "2"], "expected 1 with --counters"),
        (["--device", "cuda"], "--device"),
        (["--time-limit", "5m"], "--time-limit: expected without --counters"),
        (["--processes", "3"], "--processes: expected without --counters"),
        (["--peers", "torch.sdpa.flash", "--workloads", "softmax"], "torch.sdpa.flash"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    """Naming the option; nothing written."""
    monkeypatch.chdir(tmp_path)

    answer = CliRunner().invoke(main, ["bench", "--counters", *arguments])

    assert answer.exit_code == 2
    assert said in answer.output
    assert "Traceback" not in answer.output
    assert not list(tmp_path.iterdir())


# Instructions ----------------------------------------------------------------------------------------------------------


def cell(workload: str, peer: str = "optimized") -> callgrind.Cell:
    """In float32, with inputs of seed 0."""
    return callgrind.Cell(workload, peer, "float32", "cpu", 0)


def test_each_turn_is_one_cells(monkeypatch):
    """All are warmed up before, the first turn is nobody's, and a long call is made less often."""
    called = []

    class Recorder:
        def build(self, workload, calls, dtype, device):
            return Built(lambda: called.append(workload.name), [()], "", dtype)

    monkeypatch.setattr(callgrind, "peer", lambda name: Recorder())
    monkeypatch.setattr(callgrind.gc, "disable", lambda: None)  # this process goes on with other tests
    monkeypatch.setattr(callgrind.torch, "set_grad_enabled", lambda _: None)
    names = ["attention.64", "attention.2048"]
    turns = callgrind.Turns([vars(cell(name)) for name in names])
    warmed, seen = len(called), []

    for _ in range(3):
        called.clear()
        turns()
        seen.append(list(called))

    assert warmed == callgrind.WARM + callgrind.LONG_WARM
    assert seen == [[], [names[0]] * callgrind.CALLS, [names[1]] * callgrind.LONG_CALLS]


def test_who_cannot_be_counted_costs_nobody_else_their_count(monkeypatch):
    """A process that fails is taken apart, cell by cell, and the last line of its complaint is kept."""

    def together(cells):
        if any(each.peer == "onnxruntime" for each in cells):
            raise OSError("Failed to collect callgrind profile:\nunhandled instruction\n")
        return [100.0] * len(cells)

    monkeypatch.setattr(callgrind, "missing", str)
    monkeypatch.setattr(callgrind, "_together", together)

    assert callgrind.instructions([cell(TINY), cell(TINY, "onnxruntime"), cell(TINY, "reference")]) == [
        100.0,
        "unhandled instruction",
        100.0,
    ]


@pytest.mark.valgrind  # a minute of a processor's time, most of it for importing torch: `.ci/counters` asks for it
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(callgrind.missing()), reason=callgrind.missing())
def test_callgrind_counts_what_the_code_executes(monkeypatch):
    """Attention of 64 tokens takes at least an instruction for every 16 of its flops, and far more than attention of 8."""
    for name, value in callgrind.environment().items():
        monkeypatch.setenv(name, value)

    few, many = callgrind.instructions([cell(TINY), cell("attention.64")])

    assert isinstance(few, float), few
    assert isinstance(many, float), many
    assert 4 * 8 * 64**2 * 64 / 16 < many < 1e7
    assert few < many / 4


def test_what_is_missing_is_named(without_valgrind):
    """The tools, where they are not on PATH."""
    assert shutil.which("valgrind") is None
    assert callgrind.missing().startswith("not on PATH: valgrind")


# Reports ---------------------------------------------------------------------------------------------------------------


def counted(peer: str, instructions: float | None, *, operators: int = 19, verdict: str = "PASS") -> dict:
    """One line of bench.jsonl."""
    group = "attention.64/float32/cpu/1t"
    named = {"workload": "attention.64", "step": "attention", "dtype": "float32", "device": "cpu", "threads": 1, "sizes": {"n": 64}}
    told = {"status": "measured", "message": "", "gate": {"verdict": verdict, "claim": "A6"}}
    counts = {"instructions": instructions, "operators": operators, "allocated_bytes": 1024}
    line = {"schema": 2, "kind": "bench", "what": "counters", "id": f"{group}/{peer}", "group": group, "peer": peer}
    return {**line, **named, **told, **counts}


def run_of(folder, *found: dict, planned: tuple[str, ...] = ()):
    """A run that counted, and nothing else."""
    cells = [f"attention.64/float32/cpu/1t/{peer}" for peer in planned] or [line["id"] for line in found]
    return read(sample_runs.write(folder, [], list(found), counters_planned=cells))


def test_a_report_shows_counts_and_what_was_not_counted(tmp_path):
    """Page, Markdown and CSV; a planned cell that was not counted is red, and a wrong one has no counts."""
    lines = [counted("optimized", 1_575_092.4), counted("mine", 7.0, verdict="FAIL")]
    run = run_of(tmp_path / "run", *lines, planned=("optimized", "mine", "torch"))

    _, found = render([run.path], tmp_path / "out")

    table = found.counted.set_index("peer")
    assert list(table["status"]) == ["measured", "wrong", "missing"]
    assert table["instructions"].notna().tolist() == [True, False, False]
    assert exit_code(found) == 1
    for name in ("report.html", "summary.md"):
        assert "1\u2009575\u2009092" in (tmp_path / "out" / name).read_text()
    assert "1575092.4" in (tmp_path / "out" / "tables" / "counters.csv").read_text()


def test_a_run_that_counted_all_it_planned_is_good(tmp_path):
    """Nothing had to be verified; with one cell short it is exit code 5."""
    assert exit_code(Findings(run_of(tmp_path / "a", counted("optimized", 1.0)))) == 0
    assert exit_code(Findings(run_of(tmp_path / "b", counted("optimized", 1.0), planned=("optimized", "torch")))) == 5


def test_a_peer_that_raised_is_red(tmp_path):
    """In place of counts it has what it raised: whose own it is wants to know."""
    raised = counted("mine", 1.0) | {"status": "failed", "message": "ValueError: not today"}

    assert exit_code(Findings(run_of(tmp_path / "run", counted("optimized", 1.0), raised))) == 1


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (counted("optimized", 1.04e6), {("instructions", "more")}),
        (counted("optimized", 0.96e6), {("instructions", "fewer")}),
        (counted("optimized", 1.02e6), set()),
        (counted("optimized", 1e6, operators=20), {("operators", "more")}),
        (counted("optimized", None), {("instructions", "gone")}),
    ],
)
def test_a_comparison_shows_counts_that_changed(tmp_path, after, said):
    """Instructions by more than 3 %, operators at all; only a count that is gone is red, since more work is no verdict."""
    change = compared(run_of(tmp_path / "a", counted("optimized", 1e6)), run_of(tmp_path / "b", after))

    assert set(zip(change.recounted["count"], change.recounted["verdict"], strict=True)) == said
    assert change.exit_code == (5 if "gone" in dict(said).values() else 0)


def test_a_run_that_counted_nothing_lost_nothing(tmp_path):
    """Counts are compared where both runs have them."""
    change = compared(run_of(tmp_path / "a", counted("optimized", 1e6)), read(sample_runs.write(tmp_path / "b", [])))

    assert change.counters.empty
    assert change.exit_code == 0


def test_the_change_is_on_the_terminal_and_on_the_page(tmp_path):
    """With both counts and their ratio."""
    for name, instructions in (("a", 1e6), ("b", 1.5e6)):
        run_of(tmp_path / name, counted("optimized", instructions))

    answer = CliRunner().invoke(main, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    render([tmp_path / "b"], tmp_path / "out", tmp_path / "a")

    assert answer.exit_code == 0
    assert "instructions 1\u2009000\u2009000 → 1\u2009500\u2009000, × 1.500" in answer.output.replace(" \n", " ")
    assert "1.500" in (tmp_path / "out" / "report.html").read_text()


def test_a_merge_keeps_what_was_to_be_counted(tmp_path):
    """The plans of both parts: what one of them did not count stays missing."""
    parts = [run_of(tmp_path / "a", counted("optimized", 1.0)), run_of(tmp_path / "b", planned=("torch",))]

    assert Findings(merged(parts)).uncounted == 1
