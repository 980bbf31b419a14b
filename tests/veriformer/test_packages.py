"""A user's folder with packages of our names, found by PYTHONPATH: ours are found by us, and theirs by their code."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from veriformer import packages

KERNELS = """
    import properties
    import numpy as np

    assert properties.OF == "theirs"

    def softmax(scores):
        weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)
"""
TESTS = """
    import numpy as np
    import properties
    from my_kernels import softmax

    assert properties.OF == "theirs"

    def test_rows():
        assert abs(softmax(np.array([[1.0, 2.0]])).sum() - 1) < 1e-6
"""
VERIFY = ("verify", "my_kernels:softmax", "--arrays=numpy", "--claims=A5", "--examples=2", "--dtype=float64", "--run=run")
SCORE = ("score", "--tests", "test_softmax.py", "--replaces", "my_kernels:softmax", "--only=softmax-without-maximum", "--jobs=1")


@pytest.fixture
def project(tmp_path) -> Path:
    """Kernels in `src`, with a package `properties` beside them, and a test that is run from the folder above."""
    (tmp_path / "src" / "properties").mkdir(parents=True)
    (tmp_path / "src" / "properties" / "__init__.py").write_text('OF = "theirs"\n', encoding="utf-8")
    (tmp_path / "src" / "my_kernels.py").write_text(dedent(KERNELS), encoding="utf-8")
    (tmp_path / "test_softmax.py").write_text(dedent(TESTS), encoding="utf-8")
    return tmp_path


CONSOLE = "import sys; from veriformer.cli import main; sys.exit(main())"
VERIFY_OF_PYTHON = """
import properties, veriformer

assert properties.OF == "theirs"
verdicts = veriformer.verify("my_kernels:softmax", arrays="numpy", claims="A5", examples=2, dtype="float64")
print(verdicts, bool(verdicts))
"""


def console(project: Path, *arguments: str, command: str = CONSOLE) -> subprocess.CompletedProcess:
    """The command as it is installed, which puts no folder of ours before those of PYTHONPATH."""
    path = os.pathsep.join([str(project / "src"), str(packages.ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    here = [sys.executable, "-P", "-c", command, *arguments]
    return subprocess.run(here, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_a_kernel_beside_a_package_of_our_name_is_verified(project):
    """By the command that PYTHONPATH hides our package from."""
    said = console(project, *VERIFY)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "PASS" in said.stdout


def test_python_verifies_a_kernel_where_a_package_of_our_name_is_theirs(project):
    """In the process that has imported theirs."""
    said = console(project, command=VERIFY_OF_PYTHON)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "0 broken True" in said.stdout


def test_a_module_that_stands_alone_is_ours_and_not_in_the_place_of_theirs(monkeypatch):
    """The one that is imported by its name, where that is ours; a second time the same."""
    from reports import records

    assert packages.standing_alone("reports.records") is records
    monkeypatch.setitem(sys.modules, "reports.records", pytest)
    ours = packages.standing_alone("reports.records")

    assert ours.__file__ == records.__file__
    assert ours is not records
    assert packages.standing_alone("reports.records") is ours
    assert sys.modules["reports.records"] is pytest


def test_tests_beside_a_package_of_our_name_are_scored(project):
    """Their tests import theirs, too."""
    said = console(project, *SCORE)

    assert said.returncode in (0, 1), said.stdout + said.stderr
    assert "faults noticed" in said.stdout, said.stdout + said.stderr


def test_only_folders_with_our_names_are_searched_last(tmp_path, monkeypatch):
    """What else a user puts first stays there; the user's own code has its PYTHONPATH as it was."""
    plain, named = tmp_path / "plain", tmp_path / "named"
    (named / "bench").mkdir(parents=True)
    plain.mkdir()
    monkeypatch.setattr(sys, "path", [str(named), str(plain), str(packages.ROOT)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(named), str(plain)]))
    monkeypatch.delenv(packages.THEIRS, raising=False)

    packages.prefer_ours()

    assert sys.path == [str(plain), str(packages.ROOT), str(named)]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(packages.ROOT), str(named), str(plain)]
    assert packages.their_environment()["PYTHONPATH"].split(os.pathsep) == [str(named), str(plain)]
    assert packages.THEIRS not in packages.their_environment()
    monkeypatch.delenv(packages.THEIRS)
