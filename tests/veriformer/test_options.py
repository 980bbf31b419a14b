"""A user's typo costs a line: what was expected, what came, exit code 2, no traceback, and nothing written."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from properties.claims import CLAIMS
from properties.steps import STEPS
from veriformer import packages
from veriformer.cli import COMMANDS, main

MINE = "import numpy as np\ndef softmax(scores):\n    return scores\n"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A user's folder with a module `mine` of theirs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def invoked(*arguments: str) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(main, arguments)


def test_what_is_not_ours_is_not_imported(monkeypatch):
    """One line that says where a package of our name was found."""
    monkeypatch.setattr(packages, "mistaken", lambda: "properties: expected here, but Python finds there first")

    done = invoked("verify", "reference")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: properties: expected here, but Python finds there first" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["verfy"], "no command 'verfy'; did you mean verify?"),
        (["verify", "optimised"], "expected module:attribute or file.py:attribute; did you mean optimized?"),
        (["verify", "nowhere:softmax"], "no module named 'nowhere'"),
        (["verify", "nowhere.py:softmax"], "no file 'nowhere.py'"),
        (["verify", "mine:softmaxx"], "mine has no attribute 'softmaxx'"),
        (["verify", "mine:np"], "is not callable"),
        (["verify", "mine:softmax", "--as", "sofmax"], "--as: no step 'sofmax'; did you mean softmax?"),
        (["verify", "mine:softmax", "--claims", "A5,A99"], "--claims: no 'A99'"),
        (["verify", "mine:softmax", "--dtype", "float31"], "--dtype: no 'float31'; did you mean float32?"),
        (
            ["verify", "mine:softmax", "--arrays", "numpy", "--dtype", "bfloat16"],
            "supports float64, float32, float16, got bfloat16",
        ),
        (["verify", "mine:softmax", "--device", "tpu"], "--device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (["verify", "mine:softmax", "--device", "cuda:99"], "--device: no cuda:99 here; expected one of cpu"),
        (["verify", "mine:softmax", "--arrays", "jax"], "--arrays: expected one of torch, numpy, got jax"),
        (["verify", "mine:softmax", "--examples", "0"], "--examples: expected a whole number of at least 1, got 0"),
        (["verify", "mine:softmax", "--seed", "-1"], "--seed: expected a whole number of at least 0, got -1"),
        (["verify", "mine:softmax", "--max-time", "0"], "--max-time: expected a number of seconds above 0, got 0"),
        (["verify", "mine:softmax", "--run", "mine.py"], "mine.py already holds a run"),
        (["verify", "reference", "--as", "softmax"], "reference is built in and knows its own steps"),
        (["verify", "reference", "--dtype", "bfloat16"], "reference supports float64, got bfloat16"),
        (["verify"], "Missing argument 'TARGET'"),
        (["explain", "A99"], "no claim 'A99'; did you mean A9?"),
        (["list", "nonsense"], "'nonsense' is not one of"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_a_typo_is_one_line_and_exit_code_2(here, arguments, complaint):
    """Each names what was expected and what came."""
    before = sorted(here.iterdir())

    said = invoked(*arguments)

    assert said.exit_code == 2, said.output
    last = said.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert complaint in last
    assert said.stdout == ""
    assert sorted(path for path in here.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('[tool.veriformer]\ndtpye = "float32"\n', "[tool.veriformer] has no key 'dtpye'; did you mean dtype?"),
        ('[tool.veriformer]\ndtype = ["float31"]\n', "no 'float31'"),
        ('[tool.veriformer]\nexamples = "many"\n', "--examples: expected a whole number of at least 1, got many"),
        ("[tool.veriformer\n", "is not TOML"),
    ],
)
def test_a_mistake_in_pyproject_is_named(here, table, complaint):
    """A key that is no option, a value that is none, a file that is no TOML."""
    (here / "pyproject.toml").write_text(table)

    said = invoked("verify", "mine:softmax", "--arrays", "numpy")

    assert said.exit_code == 2
    assert complaint in said.stderr.strip().splitlines()[-1]


def test_another_commands_table_is_not_verifys(here):
    """`[tool.veriformer.bench]` does not stop `verify`, and is checked when `bench` runs."""
    (here / "pyproject.toml").write_text("[tool.veriformer.list]\nnonsense = 1\n[tool.veriformer]\nseed = 7\n")

    assert "cuda:99" in invoked("verify", "mine:softmax", "--device", "cuda:99").stderr
    assert "[tool.veriformer.list] has no key 'nonsense'" in invoked("list", "claims").stderr


def test_the_catalogue_is_printed_as_json():
    """Every claim with its id, every step with its signature; nothing else on stdout."""
    claims, steps = (json.loads(invoked("list", what, "--json").stdout) for what in ("claims", "steps"))

    assert [claim["id"] for claim in claims] == [claim.id for claim in CLAIMS]
    assert [step["signature"] for step in steps] == [step.signature for step in STEPS.values()]


@pytest.mark.parametrize("name", [claim.id for claim in CLAIMS])
def test_every_claim_is_explained(name):
    """Its sequence, its formula and what is to be seen, whatever the case it is asked in."""
    claim = next(claim for claim in CLAIMS if claim.id == name)
    said = " ".join(invoked("explain", name.lower()).stdout.split())

    for text in (claim.statement, claim.formula, claim.expectation):
        assert " ".join(text.split()) in said


def test_the_worked_example_is_printed_matrix_by_matrix():
    """The sequence of 16 tokens, the article's sizes, the masked scores."""
    said = invoked("trace").stdout

    assert "16 tokens: the cat that" in said
    for shape in ("16×512", "16×16", "16×64", "16×2048"):
        assert shape in said
    assert "-inf" in said


def test_every_command_is_there():
    """The table of commands names modules that exist, each with a `command` and one line of help."""
    for name in COMMANDS:
        said = invoked(name, "--help")
        assert said.exit_code == 0, name
        assert "Usage:" in said.stdout


def test_a_package_that_is_somebody_elses_is_refused(monkeypatch, tmp_path):
    """With both places named, when a folder of the user's comes first on the path."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] == "bench"]:
        monkeypatch.delitem(sys.modules, module)

    said = invoked("list", "claims")

    assert said.exit_code == 2
    assert str(tmp_path / "bench") in said.stderr
    assert str(packages.ROOT / "bench") in said.stderr


def test_the_current_directory_is_searched_last(monkeypatch):
    """`python -m veriformer` finds our packages before those of the folder it is started in."""
    here = str(Path.cwd() / "elsewhere")
    monkeypatch.setattr("pathlib.Path.cwd", lambda: Path(here))
    monkeypatch.setattr(sys, "path", [here, "", str(packages.ROOT)])

    packages.prefer_ours()

    assert sys.path == [str(packages.ROOT), here, ""]
