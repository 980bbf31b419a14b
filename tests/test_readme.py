"""What the README says can be done, can be done."""

import re
from pathlib import Path

import pytest

from reference import STEPS
from veriformer import verify
from veriformer.cli import COMMANDS

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
    assert (cells[3] == "×") == (ROOT / "bench" / f"bench_{step}.py").is_file()


@pytest.mark.parametrize("target", ["report", "test", "lint", "score", "calibrate", "nightly"])
def test_every_make_target_it_names_is_there(target):
    """In the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
