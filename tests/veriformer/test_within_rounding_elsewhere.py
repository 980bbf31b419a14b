"""The error budget as an assert in other projects, in the documentation, and what it costs."""

import importlib
import os
import re
import runpy
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from torch_attention import fused, inputs

import veriformer
from veriformer import rounding_cost, within_rounding
from veriformer.cli import main
from veriformer.rounding import DTYPES, Rounding

ROOT = Path(__file__).resolve().parents[2]

THEIRS = """
    import sys
    import numpy as np
    import properties
    from veriformer import assert_within_rounding, tolerance

    def test_a_layer_norm(within_rounding, oracle):
        X, norm = np.arange(6, dtype=np.float32).reshape(1, 2, 3), {"gain": np.ones(3), "bias": np.zeros(3)}
        exact = oracle("layer_norm", X, **norm)
        assert within_rounding("layer_norm", exact.astype(np.float32), X, **norm)
        assert not within_rounding("layer_norm", X, X, **norm)
        assert tolerance("layer_norm", X, **norm, dtype="float32").shape == X.shape
        try:
            assert_within_rounding("layer_nrm", X, X)
        except ValueError as error:
            assert "did you mean layer_norm?" in str(error)
        else:
            raise AssertionError("no error")

    def test_their_packages_are_theirs():
        assert properties.MINE == "properties"
        assert "reference" not in sys.modules
"""


def test_a_project_with_packages_of_our_names_has_the_fixtures(tmp_path):
    """Another process answers: the project's own `properties` stays what it is, and ours does not come in."""
    for package in ("properties", "bench"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f'MINE = "{package}"\n')
    (tmp_path / "test_theirs.py").write_text(textwrap.dedent(THEIRS))

    said = _pytest(tmp_path, "test_theirs.py")

    assert said.returncode == 0, said.stdout + said.stderr
    assert "2 passed" in said.stdout


def test_the_example_of_the_documentation_is_a_test_that_passes(tmp_path, monkeypatch):
    """Ten lines, with the kernel that README shows; and the kernel with another scale fails them."""
    example, kernel = _block("docs/assert.md", "# test_my_kernels.py"), _block("README.md", "# my_kernels.py")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "test_my_kernels.py").write_text(example)

    assert len([line for line in example.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    for text, error in ((kernel, None), (kernel.replace("Q.shape[-1]", "Q.shape[-1] * 1.1"), AssertionError)):
        (tmp_path / "my_kernels.py").write_text(text)
        monkeypatch.delitem(sys.modules, "my_kernels", raising=False)
        importlib.invalidate_caches()
        found = runpy.run_path(str(tmp_path / "test_my_kernels.py"))
        with pytest.raises(error) if error else nullcontext():
            found["test_attention_in_bfloat16"]()


def _block(page: str, first: str) -> str:
    """The block of Python of a page that begins with this line."""
    return re.search(rf"```python\n({re.escape(first)}\n.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_failure_that_the_documentation_shows_is_what_is_printed():
    """Of one element that is an eighth too large."""
    got = fused(*inputs())
    got[0, 1, 3, 2] += 0.125
    shown = (ROOT / "docs" / "assert.md").read_text(encoding="utf-8").split("<!-- failure -->\n```text\n")[1].split("```")[0]

    said = str(within_rounding("attention", got, *inputs()))

    assert re.sub(r"\d\S*", "#", shown.strip()) == re.sub(r"\d\S*", "#", said)
    assert said.splitlines()[0] == shown.splitlines()[0]


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)


def test_importing_veriformer_and_its_plugin_imports_no_package_of_ours():
    """Nor torch; the fixtures import when they are used."""
    text = "import sys, veriformer, veriformer.rounding, veriformer.pytest_plugin; print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True, check=True).stdout.split()

    assert not {"torch", "properties", "reference", "bench", "reports", "hypothesis"} & set(said)


def test_the_cost_is_printed(monkeypatch):
    """A line for each case, the import, and the plugin."""
    monkeypatch.setattr(rounding_cost, "CASES", rounding_cost.CASES[3:4])
    monkeypatch.setattr(rounding_cost, "SEEDS", 1)
    monkeypatch.setattr(rounding_cost, "of_the_plugin", lambda: 3.0)
    monkeypatch.setattr(rounding_cost, "of_the_import", lambda: 1234.0)

    said = CliRunner().invoke(main, ["budget", "--cost"])

    assert said.exit_code == 0, said.output
    head, line, imports, plugin = said.output.splitlines()
    assert head.split()[-4:] == ["oracle", "first", "again", "wrong"]
    assert re.fullmatch(r"attention 1×2×8×16( +[\d.e+]+){4}", line)
    assert imports == "the first call of a process imports for 1234 ms"
    assert plugin == "pytest's collection of an empty suite: +3 ms with the plugin"
    assert CliRunner().invoke(main, ["budget", "attention", "--cost"]).exit_code == 2
    assert CliRunner().invoke(main, ["budget"]).exit_code == 2


def test_public_names_are_exported():
    """And nothing that is not there."""
    assert all(getattr(veriformer, name) for name in veriformer.__all__)
    assert isinstance(within_rounding("softmax", np.ones((1, 1)), np.ones((1, 1))), Rounding)
    assert DTYPES == ("float64", "float32", "bfloat16", "float16")
    with pytest.raises(AttributeError, match="no attribute 'within_tolerance'"):
        _ = veriformer.within_tolerance
