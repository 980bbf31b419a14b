"""Who may import whom: the contracts hold, and each one, broken on purpose in a copy, is reported by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
pytest.importorskip("importlinter", reason="the linters are the extra `lint`")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The packages and the contracts, without history or runs."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def lint(root: Path) -> subprocess.CompletedProcess:
    """What import-linter says of the packages below `root`."""
    command = [
        sys.executable,
        "-P",
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    return subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold(copy):
    """As the packages stand."""
    said = lint(copy)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "5 kept, 0 broken" in said.stdout


@pytest.mark.parametrize(
    ("package", "statement", "chain"),
    [
        ("reference", "import optimized.softmax", "reference is not allowed to import optimized"),
        ("optimized", "import reference.softmax", "optimized is not allowed to import reference"),
        ("reference", "import properties.claims", "reference is not allowed to import properties"),
        (
            "properties/inputs",
            "import properties.evaluation.detection.catalogue",
            "properties.inputs is not allowed to import properties.evaluation",
        ),
        (
            "properties/implementations",
            "import properties.error_budget.budgets",
            "properties.implementations is not allowed to import properties.error_budget",
        ),
        ("properties", "import bench.runner.clock", "properties is not allowed to import bench"),
        ("bench", "import veriformer.engine", "bench is not allowed to import veriformer"),
        ("bench/peers", "import bench.runner.timer", "bench.peers is not allowed to import bench.runner"),
        ("bench", "import reports.folders", "bench is not allowed to import reports"),
        ("reports", "import properties.claims", "reports is not allowed to import properties"),
        ("reports", "import torch", "reports is not allowed to import torch"),
    ],
)
def test_a_forbidden_import_is_reported(copy, package, statement, chain):
    """From a new module of the package that may not."""
    intruder = copy / package / "intruder.py"
    intruder.write_text(statement + "\n")
    try:
        said = lint(copy)
    finally:
        intruder.unlink()

    assert said.returncode == 1
    assert chain in said.stdout
