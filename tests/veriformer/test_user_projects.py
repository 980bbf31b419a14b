"""From a user's own project, which has folders of the same names as ours: theirs work, and so do ours."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from reports import records
from reports.records import Verdict
from veriformer import verify
from veriformer.cli import main

MINE = """
    import ctypes, math, os, time
    import torch

    def attention(Q, K, V, mask=None):
        scores = Q @ K.mT / math.sqrt(Q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ V

    class Wrong:
        def attention(self, Q, K, V, mask=None):
            return attention(Q * math.sqrt(Q.shape[-1] / (Q.shape[-1] + 1)), K, V, mask)
        def mask(self, n, m):
            return torch.ones(n, m, dtype=torch.bool).tril(1)

    class Deadly:
        attention = staticmethod(attention)
        def softmax(self, scores):
            if scores.shape[-1] > 2: ctypes.string_at(0)
            return torch.softmax(scores, dim=-1)
        def mask(self, n, m):
            if n > 3: os._exit(0)
            return torch.ones(n, m, dtype=torch.bool).tril()
        def split_heads(self, X, h):
            time.sleep(1000)
"""
THEIR_TESTS = """
    import properties, bench, reports
    def test_theirs():
        assert (properties.MINE, bench.MINE, reports.MINE) == ("properties", "bench", "reports")
    def test_theirs_takes_a_seed(seed):
        assert seed == 7
"""
THEIR_CONFTEST = """
    import pytest
    def pytest_addoption(parser):
        parser.addoption("--seed", type=int, default=7)
        parser.addoption("--device", default="theirs")
    @pytest.fixture
    def seed(request):
        return request.config.getoption("--seed")
"""
THEIR_TEST_WITH_OURS = """
    import pytest, torch, veriformer
    from mine import attention

    def softmax(scores):
        return torch.softmax(scores, dim=-1)

    def test_my_attention():
        verdicts = veriformer.verify(attention, claims="A7", examples=3)
        assert verdicts
        assert {verdict.dtype for verdict in verdicts} == {"float32"}
        assert all(verdict.isolated for verdict in verdicts)

        import bench, properties, reports
        assert (properties.MINE, bench.MINE, reports.MINE) == ("properties", "bench", "reports")

    def test_my_softmax_has_another_name():
        broken = veriformer.verify(softmax, step="attention", claims=["A7"], examples=3)
        with pytest.raises(AssertionError, match="A7 ERROR"):
            broken.assert_ok()

    def test_a_lambda_cannot_be_verified_beside_rooms_of_ones_own():
        with pytest.raises(ValueError, match="give it a name in a module"):
            veriformer.verify(lambda scores: scores, step="softmax", claims="A5")
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A project that owns bench/, reports/ and properties/, and a conftest with options called as ours."""
    root = tmp_path_factory.mktemp("scratch")
    for package in ("bench", "reports", "properties"):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text(f'MINE = "{package}"\n')
    (root / "properties" / "conftest.py").write_text("raise ImportError('a conftest of theirs, in a run of ours')\n")
    for name, text in {
        "mine.py": MINE,
        "gone.py": "import os\nos._exit(0)\n",
        "conftest.py": THEIR_CONFTEST,
        "test_theirs.py": THEIR_TESTS,
        "test_with_ours.py": THEIR_TEST_WITH_OURS,
        "pyproject.toml": "[tool.veriformer]\ndtype = ['float32']\nexamples = 3\n",
    }.items():
        (root / name).write_text(textwrap.dedent(text))
    return root


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """A command in the user's folder, with a configuration for pytest in the environment that is not ours."""
    environment = os.environ | {"PYTEST_ADDOPTS": "-p no:cacheprovider"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def verdicts(said: subprocess.CompletedProcess) -> dict[str, set[str]]:
    """The verdicts of each claim, from `--json`; that stdout holds anything else is an error."""
    assert said.stdout, said.stderr
    found: dict[str, set[str]] = {}
    for line in json.loads(said.stdout)["verdicts"]:
        found.setdefault(line["claim"], set()).add(line["verdict"])
    return found


def test_their_own_tests_pass_with_us_installed(scratch):
    """The plugin is not noticed in a run that is not about us."""
    said = python("-m", "pytest", "test_theirs.py", folder=scratch)

    assert said.returncode == 0, said.stdout
    assert "2 passed" in said.stdout
    assert "veriformer:" not in said.stdout


def test_the_command_verifies_their_attention(scratch):
    """With the options of their pyproject.toml, into the folder named, which no later run overwrites."""
    command = (
        "-P",
        "-c",
        "from veriformer.cli import main; main()",
        "verify",
        "mine:attention",
        "--claims",
        "a7",
        "--run",
        "mine-run",
    )
    said = python(*command, folder=scratch)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "A7" in said.stdout
    assert "PASS" in said.stdout
    lines = records.finished(scratch / "mine-run" / "verify.jsonl")
    assert {(line["claim"], line["dtype"], line["isolated"]) for line in lines} == {("A7", "float32", True)}
    assert all(line["generated"] <= 3 for line in lines)
    again = python(*command, folder=scratch)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


def test_pytest_has_a_profile_of_the_properties_alone(scratch, tmp_path):
    """Twenty examples of each property that draws any."""
    target = f"--implementation={scratch / 'mine.py:attention'}"
    asked = ("--claims=A7", "--dtype=float32", "--veriformer-profile=quick", "--run=run")
    said = python("-P", "-m", "pytest", "--pyargs", "properties", target, *asked, folder=tmp_path)

    assert said.returncode == 0, said.stdout + said.stderr
    assert {line["generated"] for line in records.finished(tmp_path / "run" / "verify.jsonl")} == {20}


@pytest.mark.long
def test_python_dash_m_is_the_same_command(scratch):
    """Though it puts their folder, with a `properties` of theirs, first on the path."""
    said = python("-m", "veriformer", "verify", "mine.py:attention", "--claims=A7", "--json", folder=scratch)

    assert said.returncode == 0, said.stderr
    assert verdicts(said) == {"A7": {"PASS"}}


def test_their_pytest_file_uses_verify(scratch):
    """A callable of a module, one of the test file itself; a lambda is refused with the reason."""
    said = python("-m", "pytest", "test_with_ours.py", folder=scratch)

    assert said.returncode == 0, said.stdout
    assert "3 passed" in said.stdout


ASKED = ("--claims=M1,M2", "--dtype=float32", "--examples=10")


@pytest.fixture(scope="module")
def wrong(scratch, tmp_path_factory) -> subprocess.CompletedProcess:
    """What the command says of what is wrong, in a folder of its own: what one run broke, the next one there tries first."""
    target = str(scratch / "mine.py:Wrong")
    return python("-m", "veriformer", "verify", target, *ASKED, "--json", folder=tmp_path_factory.mktemp("command"))


def test_a_wrong_scale_and_a_shifted_mask_are_found(wrong):
    """√(d+1) in place of √d, and a mask that lets a token see its neighbour: exit 1, with a counterexample of a few numbers."""
    said = wrong

    assert said.returncode == 1, said.stderr
    assert {claim for claim, found in verdicts(said).items() if "FAIL" in found} == {"M1", "M2"}
    broken = [line for line in json.loads(said.stdout)["verdicts"] if line["broken"]]
    assert all(line["counterexample"] or line["refers"] for line in broken)
    texts = [line["counterexample"] for line in broken if not line["refers"]]
    assert any(text.startswith("attention") and len(text) < 500 for text in texts)
    assert any(text.startswith("mask(n=1, m=2)") for text in texts)


def test_a_implementation_that_dies_three_ways_gets_its_verdicts_and_the_run_completes(scratch):
    """A segmentation fault, os._exit(0), a hang: each shrunk; what works of it passes; nothing planned is missing."""
    claims = "--claims=A5,A7,H1,M1"
    said = python("-m", "veriformer", "verify", "mine:Deadly", claims, "--max-time=1", "--examples=10", "--json", folder=scratch)

    assert said.returncode == 1, said.stderr
    found = verdicts(said)
    assert "CRASH" in found["A5"]
    assert "CRASH" in found["M1"]
    assert "TIMEOUT" in found["H1"]
    assert found["A7"] == {"PASS"}
    assert json.loads(said.stdout)["missing"] == []
    crash = next(line for line in json.loads(said.stdout)["verdicts"] if line["claim"] == "M1" and line["verdict"] == "CRASH")
    assert "n=4" in crash["counterexample"]
    assert "exited with code 0 during the call" in crash["message"]


def test_a_implementation_that_leaves_while_it_is_imported_is_a_verdict(scratch):
    """os._exit(0) at import: a crash on every claim, exit 1."""
    said = python("-m", "veriformer", "verify", "gone:softmax", "--as=softmax", "--claims=A5", "--json", folder=scratch)

    assert said.returncode == 1, said.stderr
    assert verdicts(said) == {"A5": {"CRASH"}}


def test_pytest_gives_the_same_verdicts_as_the_command_line(wrong, scratch, tmp_path):
    """`pytest --pyargs properties --implementation TARGET` from any folder: the same properties, examples and verdicts."""
    target = f"--implementation={scratch / 'mine.py:Wrong'}"
    by_pytest = python("-P", "-m", "pytest", "--pyargs", "properties", target, *ASKED, "--run=run", folder=tmp_path)

    assert by_pytest.returncode == 1, by_pytest.stdout
    judged = [
        {(line["property"], line["verdict"], line["counterexample"], line["generated"], line["compared"]) for line in lines}
        for lines in (json.loads(wrong.stdout)["verdicts"], records.finished(tmp_path / "run" / "verify.jsonl"))
    ]
    assert judged[0] == judged[1]


# ---- in this process ----


def test_a_closure_is_verified_in_this_process_and_said_to_be_not_isolated():
    """By pytest, inside the pytest run that this test is part of."""
    import torch

    base = torch.e

    def softmax(scores):
        weights = base ** (scores - scores.amax(dim=-1, keepdim=True))
        return weights / weights.sum(dim=-1, keepdim=True)

    found = verify(softmax, claims="A5", dtype="float64", examples=3)

    assert found.missing == 0
    assert {finding.claim for finding in found} == {"A5"}
    assert not any(finding.isolated for finding in found)
    assert any(finding.verdict == Verdict.PASS for finding in found)


def test_a_broken_closure_is_told_with_its_counterexample():
    """`assert verify(...)` shows claim, verdict, message and the smallest input."""
    found = verify(lambda scores: scores * 0, step="softmax", claims="A5", examples=5)

    assert not found
    with pytest.raises(AssertionError, match=r"(?s)broken.*A5 FAIL .*softmax:\n    scores = 1×1 zeros\n.*the same failure as"):
        found.assert_ok()


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [({"step": "sofmax"}, "did you mean softmax"), ({"claims": "A99"}, "no 'A99'"), ({"dtype": "int8"}, "no 'int8'")],
)
def test_what_cannot_be_verified_is_a_value_error_in_one_line(asked, complaint):
    """For a callable at hand and for a named target alike."""
    for target in (lambda scores: scores, "optimized"):
        with pytest.raises(ValueError, match=complaint):
            verify(target, **{"step": None if target == "optimized" else "softmax", **asked})


def test_a_lambda_must_say_which_step_it_is():
    """Its name does not."""
    with pytest.raises(ValueError, match="say which one it is with --as STEP"):
        verify(lambda scores: scores)


def test_json_is_alone_on_stdout_also_when_refused():
    """Nothing on stdout but JSON; a refusal is on stderr."""
    said = CliRunner().invoke(main, ["verify", "reference", "--claims", "A99", "--json"])

    assert said.stdout == ""
    assert "A99" in said.stderr
