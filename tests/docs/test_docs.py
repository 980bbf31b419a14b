"""The documentation says what the code says: commands, options, verdicts, constants, and the conventions of libraries."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from bench.analysis import statistics
from bench.runner.run import Settings
from properties.error_budget import budgets, scales
from properties.implementations.contract import Contract
from reports import bench_records
from reports.records import BROKEN, Exit, Verdict
from veriformer.cli import main
from veriformer.commands import list as listed

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
}
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer", "tests", "docs", "examples", ".ci")


def text(name: str) -> str:
    """A page."""
    return PAGES[name].read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[str, str]]:
    """Every code block of a language, with the page it stands on."""
    fenced = re.compile(rf"^( *)```{language}\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
    return [
        (name, "\n".join(line.removeprefix(indent) for line in block.splitlines()))
        for name in PAGES
        for indent, block in fenced.findall(text(name))
    ]


def section(name: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return text(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(markdown: str) -> list[list[str]]:
    """The cells of its tables, heads and rules left out."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row
        for i, row in enumerate(cells)
        if i and not row[0].startswith("---") and not (i + 1 < len(cells) and cells[i + 1][0].startswith("---"))
    ]


# Commands -------------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every command of a console block, each once, without its comment; a line is cut where the shell would cut it."""
    lines = [line[2:] for _, block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    parts = [part for line in lines for part in re.split(r"\|\||&&|>>|;|\s#\s", line)]
    return sorted({part.strip() for part in parts if re.match(r"\s*(veriformer|pytest|make|python|pip) ", part)})


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("veriformer ")])
def test_an_option_in_the_documentation_exists(command, tmp_path, monkeypatch):
    """Every command of README and docs is one that the command line takes, with the values it is given."""
    monkeypatch.chdir(tmp_path)  # whose pyproject.toml is not ours
    _, name, *arguments = shlex.split(command)
    group = click.Context(main)

    found = main.get_command(group, name)

    assert found is not None
    found.make_context(name, arguments, parent=group).close()


@pytest.fixture(scope="module")
def pytest_help() -> str:
    """What pytest says of its options where the properties are named."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "properties", "--help", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("pytest ")])
def test_an_option_of_pytest_in_the_documentation_exists(command, pytest_help):
    """Ours and pytest's own; and the file that is named."""
    for argument in shlex.split(command)[1:]:
        option = argument.partition("=")[0]
        assert not option.startswith("--") or re.search(rf"{option}\b", pytest_help), option
        assert "/" not in argument or argument.startswith("-") or (ROOT / argument).exists(), argument


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("make ")])
def test_a_make_target_in_the_documentation_exists(command):
    """In the Makefile."""
    for target in shlex.split(command)[1:]:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


@pytest.mark.parametrize(
    "module", sorted({name for page in PAGES for name in re.findall(r"python -m ([\w.]+)", text(page))} - {"venv"})
)
def test_a_module_in_the_documentation_can_be_run(module):
    """It is there, and has an end of its own."""
    spec = importlib.util.find_spec(module)

    assert spec is not None
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec is not None
    assert spec.origin is not None
    assert '__name__ == "__main__"' in Path(spec.origin).read_text(encoding="utf-8") or spec.name.endswith("__main__")


NOT_OURS = {"--use_fast_math", "--benchmark-compare-fail", "--help"}  # options of other programs; and of every command


def test_options_named_in_a_sentence_exist(pytest_help):
    """Each `--option` in backticks is one of some command's, or of pytest's."""
    group = click.Context(main)
    found = [main.get_command(group, name) for name in main.list_commands(group)]
    ours = {option for command in found if command for parameter in command.params for option in parameter.opts}
    named = {
        option for page in PAGES for code in re.findall(r"`([^`\n]+)`", text(page)) for option in re.findall(r"--[a-z][\w-]+", code)
    }

    assert named
    assert sorted(option for option in named - ours - NOT_OURS if not re.search(rf"{option}\b", pytest_help)) == []


def test_extras_in_the_documentation_exist():
    """Of `pip install -e '.[extra]'`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for command in commands() for name in re.findall(r"\.\[(\w+)\]", command)}

    assert named
    assert named <= extras.keys()


# Code -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_python_in_the_documentation_is_python(page, block):
    """It compiles."""
    compile(block, page, "exec")


@pytest.mark.parametrize(("page", "block"), blocks("toml"))
def test_keys_of_pyproject_in_the_documentation_are_options(page, block):
    """Of `verify`, or of the command that the table is named after."""
    tables = tomllib.loads(block)["tool"]["veriformer"]
    names = {
        option.removeprefix("--") for option in main.get_command(click.Context(main), "verify").params for option in option.opts
    }
    for key, value in tables.items():
        if key in names:
            continue
        command = main.get_command(click.Context(main), key)
        assert command is not None, f"{page}: {key}"
        assert set(value) <= {option.removeprefix("--") for each in command.params for option in each.opts}, page


@pytest.mark.parametrize("page", PAGES)
def test_files_in_the_documentation_exist(page):
    """Every path in backticks that begins with one of our folders."""
    named = set(re.findall(rf"`((?:{'|'.join(map(re.escape, PACKAGES))})/[\w./-]*)`", text(page)))

    assert sorted(path for path in named if not (ROOT / path).exists()) == []


# What the code decides ------------------------------------------------------------------------------------------------


def test_verdicts_are_those_of_the_records_worst_first():
    """With which of them make a run red."""
    found = [(cells[0].strip("`"), cells[2] == "yes") for cells in rows(section("docs/run-format.md", "Verdicts"))]

    assert found == [(verdict.value, verdict in BROKEN) for verdict in Verdict]


def test_lines_of_the_benchmark_are_all_there_are():
    """Each kind of line, and each status of a cell."""
    found = [cells[0].strip("`") for cells in rows(section("docs/run-format.md", "Lines of bench.jsonl"))]
    kinds = set(bench_records.RECORDS)

    assert set(found) == kinds | set(bench_records.STATUSES)
    assert len(found) == len(kinds) + len(bench_records.STATUSES)


def test_exit_codes_are_all_there_are():
    """Each in the table."""
    found = [int(code) for cells in rows(section("docs/verify-your-kernel.md", "Exit codes")) for code in cells[0].split(",")]

    assert found == [code.value for code in Exit]


def test_marks_of_the_budget_are_those_in_force():
    """Where it is judged again, on how many runs, and where it fails."""
    derived, judged = (section("docs/error-budgets.md", heading) for heading in ("How one is derived", "From error to verdict"))
    again, fail = f"{budgets.SUSPECT:g}", f"{scales.FAIL:g}"

    assert f"simulator**, {budgets.TRIALS} times" in derived
    assert [cells[0] for cells in rows(judged)] == [
        f"up to {again} σ",
        f"above {again} σ",
        f"after that up to {again} σ",
        f"after that {again} to {fail} σ",
        f"after that above {fail} σ",
    ]
    assert f"σ from {budgets.AGAIN} fresh runs" in judged
    assert f"{scales.FURTHER:g} times theirs" in judged
    assert f"above {budgets.ESCALATE_BELOW:g} σ is judged again only if {budgets.BRIEFLY}" in " ".join(judged.split())
    assert f"SUSPECT, where it appears, is an error of {again} to {fail} σ after {budgets.AGAIN} resamples" in text(
        "docs/results.md"
    )
    assert f"{again} to {fail} σ after {budgets.AGAIN} resamples" in text("docs/run-format.md")


def test_arguments_of_a_contract_are_all_there_are():
    """But for the dtype, which is the implementation's."""
    found = {cells[0].strip("`") for cells in rows(section("docs/error-budgets.md", "Contracts"))}

    assert found == {each.name for each in fields(Contract)} - {"dtype"}


def test_verdicts_of_the_benchmark_are_those_it_gives():
    """Each with what it means; and the margins and the number of processes."""
    found = [cells[0] for cells in rows(section("docs/benchmarking.md", "Verdicts"))]

    assert found == list(bench_records.VERDICTS)
    assert f"{statistics.CPU_MARGIN:.0%} on the CPU".replace("%", " %") in text("docs/benchmarking.md")
    assert f"{statistics.GPU_MARGIN:.0%} on a GPU".replace("%", " %") in text("docs/benchmarking.md")
    assert Settings.processes == 5
    assert "in five fresh processes" in text("docs/benchmarking.md")


LIBRARIES = {"**torch**": ("torch",), "**flash-attention**": ("flash-attn",), "**ONNX**": ("onnx",), "**JAX**": ("jax",)}
CONVENTIONS = sorted({row["convention"] for row in listed.conventions()})


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_is_described_as_each_library_has_it(name):
    """A section each, a line for each library: with its choice, or that it is left open."""
    lines = section("docs/conventions.md", name).replace("\n  ", " ").splitlines()
    for library, names in LIBRARIES.items():
        line = next(line for line in lines if line.startswith(f"- {library}"))
        chosen = {row["choice"] for row in listed.libraries() if row["convention"] == name and row["library"] in names}
        known = {row["choice"] for row in listed.conventions() if row["convention"] == name}

        assert chosen <= set(re.findall(r"`(\w+)`", line)), line
        assert bool(chosen) != line.endswith("Left open."), line
        assert not chosen or len(known & set(re.findall(r"`(\w+)`", line))) == 1 or library == "**torch**", line


def test_the_figure_shows_what_its_page_says():
    """The correct run is inside the budget, the faulty one is not, and assert_close rejects elements of the correct one."""
    spec = importlib.util.spec_from_file_location("error_budget", ROOT / "docs" / "figures" / "error_budget.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    Q, K, V = figure.inputs()
    exact, scale, _ = figure.budget(Q, K, V)
    correct, faulty = (abs(figure.attention(Q, K, V, d_k) - exact) for d_k in (figure.D_K, figure.D_K + 1))

    assert (figure.LOOK_AGAIN, figure.FAIL) == (budgets.SUSPECT, scales.FAIL)
    assert (correct <= figure.FAIL * scale).all()
    assert (faulty > figure.FAIL * scale).sum() > exact.size / 4
    assert (correct > figure.ATOL + figure.RTOL * abs(exact)).any()
    assert f"{figure.N} queries, {figure.M} keys and d_k = {figure.D_K}" in text("docs/error-budgets.md")
    assert f"Errors of {exact.size} elements" in text("docs/error-budgets.md")
