"""A user's own tests, scored: what stands in their kernel's place, what is said of it, and what is left on disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from scored_project import project, ran, scored, statuses

from properties.evaluation.users_tests.stand_ins import faults_of, of_fault

ROOT = Path(__file__).resolve().parents[2]
SCORE = json.loads((ROOT / "properties" / "data" / "score.json").read_text(encoding="utf-8"))
ONLY = [f"--only={name}" for name in ("scale-divided-by-its-inverse", "mask-inverted-as-integers", "zeros")]
NORM = """
    import torch

    def layer_norm(x, weight, bias, eps=1e-5):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
"""
TESTS_OF_NORM = """
    import torch
    from kernels import layer_norm

    def test_value():
        torch.manual_seed(0)
        x, weight, bias = torch.randn(3, 16) / 10, torch.randn(16), torch.randn(16)
        assert torch.allclose(layer_norm(x, weight, bias), torch.nn.functional.layer_norm(x, (16,), weight, bias), atol=1e-6)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, dict]:
    """A score of the small project, and where it is."""
    folder = project(tmp_path_factory.mktemp("mine"))
    return folder, scored(folder, *ONLY)


def test_a_fault_is_noticed_or_gets_through_with_the_input_that_would_have_told(found):
    """Another scale is noticed; the mask, which no test passes, is not."""
    faults = {fault["id"]: fault for fault in found[1]["faults"]}

    assert faults["scale-divided-by-its-inverse"]["status"] == "noticed"
    assert faults["scale-divided-by-its-inverse"]["test"] == "test_kernels.py::test_value"
    assert faults["zeros"]["status"] == "noticed"
    through = faults["mask-inverted-as-integers"]
    assert (through["status"], through["found_by"]) == ("got through", "test_attention_agrees_with_the_oracle")
    assert re.search(r"mask .*: expected .*, got ", through["input"])


def test_every_way_to_have_the_kernel_is_replaced(found):
    """An imported name, a partial application, a registry, a parameter of a test, another function of its module."""
    tests = {test["id"].partition("::")[2]: test for test in found[1]["each_test"]}

    assert {name: test["calls"] for name, test in tests.items()} == {
        "test_value": 1,
        "test_by_parameter[attention]": 3,
        "test_shape": 1,
        "test_layer": 1,
        "test_something_else": 0,
        "test_on_a_gpu": 0,
    }
    assert "all-zeros" in tests["test_by_parameter[attention]"]["failed_for"]
    assert tests["test_layer"]["failed_for"] == ["all-nan"]


def test_a_test_that_compares_nothing_is_said(found):
    """It calls the kernel, and passes on zeros, ones, NaN and noise; one that needs a GPU is skipped by its own mark, and said."""
    tests = {test["id"].partition("::")[2]: test for test in found[1]["each_test"]}

    assert tests["test_shape"]["failed_for"] == []
    assert tests["test_something_else"]["failed_for"] == []
    assert tests["test_on_a_gpu"]["skipped"] == "needs a GPU"


def test_the_users_files_are_as_they_were(found):
    """Nothing is left beside them but the run."""
    folder, _ = found

    assert sorted(path.name for path in folder.iterdir()) == ["kernels.py", "properties", "runs", "test_kernels.py"]
    assert not list(folder.rglob("__pycache__"))


def test_a_finished_score_is_read_again_and_written_as_a_page(found):
    """The same request starts no run of the tests."""
    folder, before = found
    (run,) = (folder / "runs").glob("*/")
    lines = (run / "tests.jsonl").read_text(encoding="utf-8")

    assert scored(folder, *ONLY) == before
    assert (run / "tests.jsonl").read_text(encoding="utf-8") == lines
    assert "1 of 2 faults noticed" in (run / "report.html").read_text(encoding="utf-8")


def test_a_killed_score_is_taken_up_where_it_ended(tmp_path):
    """kill -9 of the command: its processes end with it, and the same command goes on behind what is on disk."""
    folder = project(tmp_path, NORM, TESTS_OF_NORM)
    only = [f"--only={name}" for name in ("variance-over-d-minus-one", "eps-outside-the-root")]
    asked = ["--tests", "test_kernels.py", "--replaces", "kernels:layer_norm", *only, "--jobs", "1"]
    here = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "veriformer", "score", *asked]
    process = subprocess.Popen(command, cwd=folder, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = None
    while process.poll() is None and (lines is None or lines.read_text(encoding="utf-8").count("\n") < 5):
        time.sleep(0.05)
        lines = next(iter(folder.glob("runs/*/tests.jsonl")), None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lines is not None
    before = lines.read_text(encoding="utf-8")

    done = ran(folder, *asked)

    after = lines.read_text(encoding="utf-8")
    whole = before[: before.rindex("\n") + 1]
    assert done.exit_code == 0, done.output
    assert 5 <= whole.count("\n") < after.count("\n")
    assert after.startswith(whole)
    ids = [json.loads(line)["id"] for line in after.splitlines()]
    assert len(ids) == len(set(ids))
    assert done.stdout.startswith("2 of 2 faults noticed  by the tests of kernels:layer_norm")


def test_a_correct_implementation_that_is_failed_is_said(tmp_path):
    """By a test that asks for the very bits: and what fails for a fault's base as well notices nothing."""
    exact = """
        import torch
        from kernels import attention

        def test_bits():
            torch.manual_seed(0)
            q, k, v = (torch.randn(1, 2, 40, 16) for _ in range(3))
            expected = torch.softmax(q @ k.mT / 4, dim=-1) @ v
            assert torch.equal(attention(q, k, v), expected)

        def test_shape():
            assert attention(*(torch.ones(1, 1, 2, 4) for _ in range(3))).shape == (1, 1, 2, 4)
    """
    got = statuses(project(tmp_path, tests=exact), ("test_kernels.py",), "kernels:attention", "running-maximum-starts-at-zero")

    (fault,), (right,) = got.faults, got.correct
    assert (right.id, list(right.failed)) == ("blocked_attention", ["test_kernels.py::test_bits"])
    assert fault.status == "not told apart"
    assert not got.good


def test_the_naive_suite_notices_what_the_built_in_comparison_does(tmp_path):
    """`assert_close` on normal inputs, fault by fault: some that it catches and some that it does not."""
    usual = {
        each["id"]: each["assert_close"] for each in SCORE["entries"] if each["step"] == "attention" and each["dtype"] == "float32"
    }
    chosen = [[name for name, caught in usual.items() if caught is said][::12] for said in (True, False)]
    names = [name for each in chosen for name in each]
    shutil.copytree(ROOT / "examples" / "naive_suite", tmp_path / "suite")

    tests = [f"test_plain_attention.py::test_attention[{kind}-{seed}-float32]" for kind in ("plain", "masked") for seed in range(3)]
    found = statuses(tmp_path / "suite", tuple(tests), "plain_attention:attention", *names)

    got = {fault.id: fault.status == "noticed" for fault in found.faults}
    assert got == {name: usual[name] for name in names}
    assert {*usual.values()} == {True, False}


def test_the_page_of_the_documentation_counts_what_there_is():
    """The faults and cheats of attention, without those of dropout, which the suite's kernel has not."""
    page = (ROOT / "docs" / "score-your-tests.md").read_text(encoding="utf-8")
    kinds = Counter(of_fault(fault).kind for fault in faults_of("attention") if fault.steps[0] != "attention.dropout_mask")

    assert re.findall(r"(\d+) of (\d+) faults noticed, (\d+) of (\d+) cheats", page) == [
        ("27", str(kinds["fault"]), "24", str(kinds["cheat"]))
    ]
    assert f"all {kinds['fault']} faults and {kinds['cheat'] - 3} of {kinds['cheat']} cheats are alike" in " ".join(page.split())
