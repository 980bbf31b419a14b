"""What the README says can be done, can be done."""

import json
import re
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.runner.records import records
from reference import STEPS
from reports.bench_records import Comparison
from veriformer import verify
from veriformer.cli import COMMANDS
from veriformer.results import Results
from veriformer.show import Cards, show

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_ten_lines_of_your_own_are_verified(tmp_path):
    """The README's attention passes what it is verified against here."""
    (tmp_path / "my_kernels.py").write_text(next(block for block in blocks("python") if "# my_kernels.py" in block))

    assert verify(f"{tmp_path / 'my_kernels.py'}:attention", claims="A7,M2", dtype="float32,bfloat16", examples=5)


def test_it_is_ten_lines():
    """Not one more."""
    lines = next(block for block in blocks("python") if "# my_kernels.py" in block).splitlines()

    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= 10


def test_its_table_names_every_command_and_no_other():
    """In the section of that name."""
    section = README.split("## All commands")[1].split("\n## ")[0]
    first_cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))

    assert set(re.findall(r"`(?:veriformer )?([a-z]+)", first_cells)) == COMMANDS.keys()


@pytest.mark.parametrize("step", [*STEPS, "transformer"])
def test_every_row_of_its_matrix_is_four_files(step):
    """Where the table has a cross or a name, there is a file."""
    row = next(line for line in README.splitlines() if re.match(rf"\| *\d* *\| {step} \|", line))
    cells = [cell.strip() for cell in row.strip("|").split("|")][2:]

    for room, cell in zip(("reference", "optimized"), cells[:2], strict=True):
        assert cell == "×"
        assert (ROOT / room / f"{step}.py").is_file()
    for name in re.findall(r"`(\w+)`", cells[2]):
        assert (ROOT / "properties" / f"{name}.py").is_file()
    assert (cells[3] == "×") == (ROOT / "bench" / f"{step}.py").is_file()


def committed(name: str) -> Any:
    """A published measurement."""
    return json.loads((ROOT / "properties" / "data" / f"{name}.json").read_text(encoding="utf-8"))


def figures(row: str) -> list[str]:
    """The cells behind the row's name."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {row}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_its_score_is_the_committed_one():
    """Of ours at every seed, and of the usual checks."""
    score = committed("score")
    ours = {f"{each['caught']} of {each['of']}" for each in score["by_seed"]}

    assert figures("these properties, at each of the seeds 0, 1, 2, 3 and 4") == [*ours]
    assert figures("`torch.testing.assert_close` with its defaults") == ["{} of {}".format(*score["usual"]["assert_close"])]
    assert figures("flash-attention's rule") == ["{} of {}".format(*score["usual"]["twice_the_baseline"])]


def test_its_calibration_is_the_committed_one():
    """Every figure of the table, dtype by dtype."""
    found = list(committed("calibration").values())

    for kind, row in (("steps", "honest results of single steps"), ("modules", "honest results of whole modules")):
        assert figures(row) == [f"{of[kind]['false alarms']['ours']} of {of[kind]['checks']:,}" for of in found]
    for rival, row in (
        ("assert_close", "`assert_close` on the same steps"),
        ("2x baseline", "twice the baseline's error, on the same"),
    ):
        assert figures(row) == [f"{of['steps']['false alarms'][rival]:,}" for of in found]
    assert figures("22 named faults") == [str(of["named"]["seen"]["ours"]) for of in found]
    exponents = [of["graded"]["mean exponent"] for of in found]
    assert figures("smallest fault seen") == [f"2^−{of['ours']:.1f}" for of in exponents]
    rivals = ("assert_close", "2x baseline", "2x baseline")
    larger = [2.0 ** (of["ours"] - of[rival]) for of, rival in zip(exponents, rivals, strict=True)]
    assert [cell.split("×")[0] for cell in figures("how much larger")] == [f"{times:.3g}" for times in larger]


def test_its_trust_in_timings_is_the_committed_one():
    """Pairs, blocks, and the rule of pytest-benchmark on the same samples."""
    found = json.loads((ROOT / "bench" / "data" / "self_test.json").read_text(encoding="utf-8"))
    designs = {each["design"]: each for each in found["designs"]}
    two, single = [designs["pairs, Student"], designs["blocks, Student"]], found["medians of blocks in one process"]

    covered = [
        "{covered} of {trials} ({0:.1f}–{1:.1f} %)".format(100 * d["coverage_low"], 100 * d["coverage_high"], **d) for d in two
    ]
    assert figures("the same work called the same") == [*covered, f"{1 - single['identical flagged']:.0%}".replace("%", " %")]
    assert figures("median width")[:2] == [f"{100 * each['width']:.2f} %" for each in two]
    more = [each["above_one"] for each in two] + [single["5 % found"]]
    assert figures("5 % more work found") == [f"{100 * share:.0f} %" for share in more]


RUN = max((ROOT / "reports" / "runs").iterdir())  # named by their days


def test_its_verification_is_the_committed_run(monkeypatch):
    """What the command prints of it, line by line."""
    monkeypatch.chdir(ROOT)
    told = StringIO()
    show(Results.of(RUN), Cards(Console(file=told, width=100, highlight=False)))
    printed = [line.rstrip() for line in told.getvalue().splitlines()]

    assert "```\n{}\n```".format("\n".join(printed)) in README
    assert f"[`{RUN.relative_to(ROOT)}`]({RUN.relative_to(ROOT)}/summary.md)" in README


def test_its_speeds_are_those_of_the_committed_run():
    """Each cell of the table: the ratio and its interval, or the word for what cannot be said."""
    compared = {line.id: asdict(line) for line in records(RUN, Comparison)}
    head, _, *rows = README.split("<!-- speeds -->\n")[1].split("\n\n")[0].splitlines()
    workloads = re.findall(r"`([\w.]+)`", head)

    assert len(workloads) > 3
    for row in rows:
        peer, *cells = [cell.strip(" `") for cell in row.strip("|").split("|")]
        found = [compared.get(f"{workload}/float32/cpu/2t/{peer}", {"ratio": None}) for workload in workloads]
        assert cells == [speed(line) for line in found], peer


def speed(line: dict[str, Any]) -> str:
    """A cell of the table."""
    if line["ratio"] is None:
        return ""
    doubt = {"unresolved": " ?", "untrusted": " ??"}.get(line["verdict"], "")
    return f"{line['ratio']:.2f} [{line['low']:.2f}, {line['high']:.2f}]{doubt}" if line["low"] else f"{line['ratio']:.2f} ?"


@pytest.mark.parametrize("target", ["report", "test", "lint", "score", "calibrate", "nightly"])
def test_every_make_target_it_names_is_there(target):
    """In the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
