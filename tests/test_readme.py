"""What README and docs say can be done, can be done; and each number they hold is that of the committed data it comes from."""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from bench.runner.records import records
from properties.claims import CLAIMS
from properties.evaluation.calibration import table
from properties.evaluation.detection.cheats import BY_CHANCE, CHEATS
from reference import STEPS
from reports.bench_records import Comparison
from reports.records import Exit
from veriformer import rounding_cost, verify
from veriformer.cli import COMMANDS, main
from veriformer.results import Results
from veriformer.show import Cards, show

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 7000
MOST_MILLISECONDS = 20  # that the pytest plugin may add to a suite that does not use it


def page(name: str) -> str:
    """The text of README.md or of a page of docs/."""
    return (ROOT / (name if name == "README.md" else f"docs/{name}")).read_text(encoding="utf-8")


README, QUICKSTART, ARCHITECTURE = page("README.md"), page("quickstart.md"), page("architecture.md")
EVALUATION, RESULTS = page("evaluation.md"), page("results.md")


def blocks(language: str) -> list[str]:
    """README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def kernel() -> str:
    """README's ten lines."""
    return next(block for block in blocks("python") if "# my_kernels.py" in block)


def test_readme_is_short():
    """What is longer belongs into docs/."""
    assert len(README.encode()) <= MOST_BYTES


def test_readme_counts_the_claims():
    """As the catalogue does."""
    assert f"{len(CLAIMS)} claims about the Transformer" in README


@pytest.mark.long
def test_the_kernel_of_readme_is_verified(tmp_path):
    """README's attention passes what it is verified against here, and not only what README shows."""
    (tmp_path / "my_kernels.py").write_text(kernel())

    assert verify(f"{tmp_path / 'my_kernels.py'}:attention", claims="A7,M2", dtype="float32,bfloat16", examples=5)


def test_the_kernel_of_readme_is_ten_lines_and_the_same_in_the_docs():
    """Not one more."""
    lines = kernel().splitlines()

    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= 10
    assert kernel() in page("verify-your-kernel.md")


SHOWN = [block for block in blocks("console") if block.startswith("$ veriformer verify")]


@pytest.mark.parametrize(("shown", "code"), list(zip(SHOWN, (0, 1), strict=True)), ids=["pass", "fail"])
def test_readme_shows_what_the_terminal_prints(tmp_path, shown, code):
    """The pass and the failure; line breaks, frames and the run's folder aside, and how this processor rounds."""
    (tmp_path / "my_kernels.py").write_text(kernel())
    (tmp_path / "wrong.py").write_text(kernel().replace("math.sqrt(Q.shape[-1])", "math.sqrt(Q.shape[-1] + 1)"))
    command, _, output = shown.partition("\n")
    arguments = [*command.split()[2:], "--run", "run"]

    done = subprocess.run(
        [sys.executable, "-P", "-m", "veriformer", *arguments],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code, done.stderr
    expected, printed = words(output), words(done.stdout)
    assert [a if alike(a, b) else b for a, b in zip(expected, printed, strict=False)] == expected
    assert len(printed) == len(expected)


def words(output: str) -> list[str]:
    """What a terminal shows, without what depends on its width and on where the run is kept."""
    return re.sub(r"[│╭╮╰╯─]|\((runs/)?\w+\)$", " ", output.strip()).split()


def alike(first: str, second: str) -> bool:
    """The same word, or errors and answers that rounding makes a little different on another processor."""
    try:
        return first == second or ("." in first and 0.5 <= float(first.strip(",")) / float(second.strip(",")) <= 2)
    except (ValueError, ZeroDivisionError):
        return False


def test_the_table_of_commands_names_every_command_and_no_other():
    """In the section of that name."""
    section = QUICKSTART.split("## All commands")[1].split("\n## ")[0]
    first_cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))

    assert set(re.findall(r"`(?:veriformer )?([a-z]+)", first_cells)) == COMMANDS.keys()


@pytest.mark.parametrize("step", [*STEPS, "transformer"])
def test_every_row_of_the_matrix_is_four_files(step):
    """Where the table has a cross or a name, there is a file."""
    row = next(line for line in ARCHITECTURE.splitlines() if re.match(rf"\| *\d* *\| {step} \|", line))
    cells = [cell.strip() for cell in row.strip("|").split("|")][2:]

    for package, cell in zip(("reference", "optimized"), cells[:2], strict=True):
        assert cell == "×"
        assert (ROOT / package / f"{step}.py").is_file()
    for name in re.findall(r"`(\w+)`", cells[2]):
        assert (ROOT / "properties" / f"{name}.py").is_file()
    assert (cells[3] == "×") == (ROOT / "bench" / f"{step}.py").is_file()


def committed(name: str) -> Any:
    """A published measurement."""
    return json.loads((ROOT / "properties" / "data" / f"{name}.json").read_text(encoding="utf-8"))


def figures(row: str, text: str = EVALUATION) -> list[str]:
    """The cells behind the row's name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_score_is_the_committed_one():
    """Of ours at every seed, and of the usual checks."""
    score = committed("score")
    ours = {f"{each['caught']} of {each['of']}" for each in score["by_seed"]}
    usual = ["{} of {}".format(*score["usual"][rule]) for rule in ("assert_close", "twice_the_baseline")]

    assert figures("these properties, at each of the seeds 0, 1, 2, 3 and 4") == [*ours]
    assert figures("`torch.testing.assert_close` with its defaults") == usual[:1]
    assert figures("flash-attention's rule") == usual[1:]
    assert figures("re-created bugs caught", README) == [*ours, *usual]


def test_the_size_of_the_catalogue_is_that_of_the_committed_score():
    """Faults, classes, cheats; and the correct implementations that were tried."""
    score = committed("score")
    faults, cheats = len(score["entries"]) - score["cheats"][1], score["cheats"][1]
    classes = {each["class"] for each in score["classes"]} - score["out_of_scope"].keys()

    assert (
        f"\n{faults} faults re-created from bug reports of real projects, in {len(classes)} classes, and {cheats} cheats"
        in EVALUATION
    )
    assert "Of {variants} correct implementations, in {checks} checks, none is flagged".format(**score["correct"]) in EVALUATION
    assert score["correct"]["flagged"] == {}


def test_runs_in_processes_of_their_own_are_those_of_the_committed_score():
    """The sample of faults, and the strange answers."""
    score, text = committed("score"), " ".join(EVALUATION.split())
    isolated, answers = score["isolated"], score["answers"]
    caught = isolated["faults"] - len(isolated["differ"])
    ran = f"{answers['planned'] - answers['missing']:,} of {answers['planned']:,} planned checks have a verdict"

    cheats = len(CHEATS) - len(BY_CHANCE)
    assert f"verifies {isolated['faults'] - cheats} faults, one of each class, and {cheats} of the cheats" in text
    assert f"For {caught} of them the same property breaks; {len(isolated['flagged'])} of their bases are flagged" in text
    assert f"all {answers['candidates']} through `veriformer verify`: {ran}, {len(answers['wrong'])} verdicts are wrong" in text
    assert f"and {isolated['ended_early'] + answers['ended_early']} runs ended early" in text


def test_the_calibration_is_the_committed_one():
    """Every figure of the table, dtype by dtype."""
    found = list(committed("calibration").values())

    for kind, row in (("steps", "correct results of single steps"), ("modules", "correct results of whole modules")):
        assert figures(row) == [f"{of[kind]['false positives']['ours']} of {of[kind]['checks']:,}" for of in found]
    for rival, row in (
        ("assert_close", "`assert_close` on the same steps"),
        ("2x baseline", "twice the baseline's error, on the same"),
    ):
        assert figures(row) == [f"{of['steps']['false positives'][rival]:,}" for of in found]
    assert figures("22 named faults") == [str(of["named"]["seen"]["ours"]) for of in found]
    exponents = [of["graded"]["mean exponent"] for of in found]
    assert figures("smallest fault seen") == [f"2^−{of['ours']:.1f}" for of in exponents]
    rivals = ("assert_close", "2x baseline", "2x baseline")
    larger = [2.0 ** (of["ours"] - of[rival]) for of, rival in zip(exponents, rivals, strict=True)]
    assert [cell.split("×")[0] for cell in figures("how much larger")] == [f"{times:.3g}" for times in larger]
    assert f"at least {min(of['steps']['variants'] for of in found)} correct variants" in EVALUATION
    assert f"{found[0]['steps']['bound of the rate'] * 1e6:.1f} in a million steps in float32" in EVALUATION


def test_the_trials_of_the_simulator_are_the_committed_ones():
    """How many of how many cases, none flagged, and the largest score."""
    found = [of["simulated"] for of in committed("calibration").values()]

    assert figures("trials: flagged") == [f"{of['false positives']} of {of['trials']:,}, of {of['cases']:,}" for of in found]
    assert figures("the largest of them") == [f"{max(of['largest score'].values()):.2f} σ" for of in found]
    assert sum(of["trials"] for of in found) >= 10**6


def test_the_calibration_of_gradients_is_the_committed_one():
    """Every figure of its table, dtype by dtype."""
    found = list(committed("calibration").values())
    correct, graded = [of["backward"] for of in found], [of["graded backward"] for of in found]

    assert figures("correct gradients") == [f"{of['false positives']['ours']} of {of['checks']:,}" for of in correct]
    for rule, row in (
        ("3x baseline", "flash-attention's rule (3 times"),
        ("gradcheck", "`gradcheck`'s defaults"),
        ("PyTorch's factors", "PyTorch's test factors"),
    ):
        assert figures(row) == [f"{of['false positives'][rule]:,}" for of in correct]
    assert figures("smallest fault of a backward seen") == [f"2^−{of['mean exponent']['ours']:.1f}" for of in graded]
    larger = [2.0 ** (of["mean exponent"]["ours"] - of["mean exponent"]["3x baseline"]) for of in graded]
    assert figures("how much larger a backward's fault") == [f"{times:.3g}×" for times in larger]
    relaxed = [of["mean exponent at no false positives"]["3x baseline"] for of in graded]
    assert figures("the same, once neither flags") == [f"2^−{each:.1f}" if each else "unseen" for each in relaxed]
    assert {len(of["exponents"]) for of in graded} == {7}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_false_positives_of_readme_are_those_of_the_committed_calibration(dtype):
    """Of ours, of assert_close, and of twice the baseline's error."""
    steps = committed("calibration")[dtype]["steps"]
    flagged = [f"{steps['false positives'][rule]:,}" for rule in ("ours", "assert_close", "2x baseline")]

    assert figures(f"correct {dtype} results flagged, of {steps['checks']:,} ", README) == flagged


def test_the_comparison_with_other_tolerances_is_the_committed_one():
    """The table that `veriformer calibrate --compare` printed, line by line."""
    shown = page("assert.md").split("<!-- comparison -->\n```text\n")[1].split("\n```")[0]

    assert shown == table.comparison(committed("comparison"))


def test_the_costs_shown_are_of_the_cases_that_are_measured():
    """A line for each, in their order, then what the first call imports, then the plugin, which a suite does not notice."""
    shown = page("assert.md").split("<!-- cost -->\n```text\n")[1].split("\n```")[0].splitlines()
    cases = [f"{step} {'×'.join(map(str, shapes[0]))}" for step, shapes, _ in rounding_cost.CASES]

    assert [re.split(r"  +", line)[0] for line in shown[1:-2]] == cases
    assert shown[0].startswith(rounding_cost.DTYPE)
    assert float(re.search(r"([+-]\d+) ms with the plugin", shown[-1])[1]) < MOST_MILLISECONDS


def test_the_trust_in_timings_is_the_committed_one():
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


RUNS = sorted((ROOT / "reports" / "runs").iterdir())  # named by their days
RUN = max(run for run in RUNS if (run / "verify.jsonl").exists() and (run / "bench.jsonl").exists())
OF_LIBRARIES = max(run for run in RUNS if "-libraries-" in run.name)


def test_the_verification_is_the_committed_run(monkeypatch):
    """What the command prints of it, line by line."""
    monkeypatch.chdir(ROOT)
    told = StringIO()
    show(Results.of(RUN), Cards(Console(file=told, width=100, highlight=False)))
    printed = [line.rstrip() for line in told.getvalue().splitlines()]

    assert "```\n{}\n```".format("\n".join(printed)) in RESULTS
    assert f"`{RUN.relative_to(ROOT)}`" in RESULTS
    assert f"({RUN.relative_to(ROOT)}/report.png)" in README


def test_the_picture_is_of_the_committed_page(monkeypatch):
    """As it is today: `make picture` makes it anew."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "figures")
    report = importlib.import_module("report")
    path = report.newest() / "report.png"
    with Image.open(path) as picture:
        text: dict[str, str] = picture.info

    assert report.newest() == RUN
    assert text[report.KEY] == report.digest(RUN), "the page looks different now: make picture"
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_committed_run_is_rendered_as_it_is_committed(run, tmp_path):
    """By `veriformer report`: a format that changes takes the committed run with it."""
    rendered = CliRunner().invoke(main, ["report", str(run), "-o", str(tmp_path)])

    assert rendered.exit_code == (Exit.BROKEN if Results.of(run).broken else Exit.GOOD), rendered.output
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == (run / "summary.md").read_text(encoding="utf-8")


def test_the_table_of_libraries_is_the_committed_run():
    """What the command prints of it, line by line, and behind each line our reading; what was not run is listed, no more."""
    page = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8")
    found, rest = page.split("## What was found")[1].split("## Reading")
    listed = re.findall(r"^\* `([\w.]+)`: ((?:\w+, )*\w+)$", rest.split("## Not run")[1], re.MULTILINE)

    printed = CliRunner().invoke(main, ["libraries", "--read", "--run", str(OF_LIBRARIES)])

    assert printed.exit_code == 0, printed.output
    head, _, *rows = printed.output.splitlines()
    made = [row for row in rows if "| not run | not run |" not in row]
    missing = [[cell.strip(" `") for cell in row.split("|")[1:5]] for row in rows if row not in made]
    shown = [line for line in found.splitlines() if line.startswith("| ")]
    assert f"`{OF_LIBRARIES.relative_to(ROOT)}`" in found
    assert [line.rpartition("|")[0].rpartition("|")[0] + "|" for line in shown] == [head, *made]
    assert not [line for line in shown if line.endswith("| |")]
    assert [(name, dtype) for name, dtypes in listed for dtype in dtypes.split(", ")] == [(row[0], row[3]) for row in missing]


def test_the_speeds_of_the_tuned_tier_are_those_of_its_committed_runs():
    """The table of each run's page, line by line."""
    page = (ROOT / "docs" / "fast.md").read_text(encoding="utf-8")
    runs = [run for run in RUNS if f"`{run.relative_to(ROOT)}`" in page]

    assert len(runs) > 1
    for run in runs:
        summary = (run / "summary.md").read_text(encoding="utf-8")
        table = summary.split("## Beside the fastest of the others\n\n")[1].split("\n\n")[0]
        assert table.count("\n") > 1
        assert f"\n\n{table}\n\n" in page


def test_the_speeds_are_those_of_the_committed_run():
    """Each cell of the table: the ratio and its interval, or the word for what cannot be said."""
    compared = {line.id: asdict(line) for line in records(RUN, Comparison)}
    head, _, *rows = RESULTS.split("<!-- speeds -->\n")[1].split("\n\n")[0].splitlines()
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
