"""A user's own tests, scored: what stands in their kernel's place, how it is called, what is said of it, and what is refused."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from properties.evaluation.users_tests.stand_ins import faults_of, of_fault
from reports.tests_score_records import TestsScore
from veriformer.cli import main
from veriformer.users_tests.scored import Progress, Request
from veriformer.users_tests.scored import scored as score_of

ROOT = Path(__file__).resolve().parents[2]
SCORE = json.loads((ROOT / "properties" / "data" / "score.json").read_text(encoding="utf-8"))
KERNEL = """
    import math
    import torch

    def attention(q, k, v, attn_mask=None, is_causal=False):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ v

    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v)
"""
TESTS = """
    import functools
    import pytest, torch
    import kernels
    from kernels import attention

    by_name = {"ours": attention}
    causal = functools.partial(attention, is_causal=True)

    @pytest.fixture
    def qkv():
        torch.manual_seed(0)
        return [torch.randn(2, 2, 6, 4) for _ in range(3)]

    def test_value(qkv):
        expected = torch.nn.functional.scaled_dot_product_attention(*qkv)
        assert torch.allclose(attention(*qkv), expected, atol=1e-5)

    @pytest.mark.parametrize("kernel", [attention])
    def test_by_parameter(qkv, kernel):
        assert torch.equal(kernel(*qkv), by_name["ours"](*qkv))
        assert kernel(*qkv).abs().max() > 1e-3

    def test_shape(qkv):
        assert causal(*qkv).shape == (2, 2, 6, 4)

    def test_layer(qkv):
        assert kernels.Layer()(*qkv).isfinite().all()

    def test_something_else():
        assert 1 + 1 == 2

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_on_a_gpu():
        attention(*(torch.ones(1, 1, 1, 1, device="cuda") for _ in range(3)))
"""


def project(folder: Path, kernel: str = KERNEL, tests: str = TESTS) -> Path:
    """A user's project, with a folder of a name of ours."""
    for name, text in {"kernels.py": kernel, "test_kernels.py": tests, "properties/__init__.py": "theirs = True"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def ran(folder: Path, *options: str) -> Result:
    """What the command does in a folder, in this process; the tests it scores are in a process of theirs."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(main, ["score", *options])


def scored(folder: Path, *options: str, replaces: str = "kernels:attention") -> dict:
    """The record of a score of `test_kernels.py`, which notices something and lets something through."""
    asked = ["--tests", "test_kernels.py", "--replaces", replaces, "--as", "attention", "--jobs", "1", "--json"]
    done = ran(folder, *asked, *options)
    assert done.exit_code == 1, done.output
    return json.loads(done.stdout)


def statuses(folder: Path, tests: tuple[str, ...], replaces: str, *only: str, step: str = "attention") -> TestsScore:
    """A score without the search for what would have told."""
    request = Request(tests, replaces, step, only=only, search=False, folder=folder / "run")
    with contextlib.chdir(folder):
        return score_of(request, Progress(lambda *_: None))[0]


def refused(folder: Path, *options: str) -> str:
    """The one line that a request is refused with."""
    done = ran(folder, *options)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


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


TOKENS_FIRST = """
    import math
    import torch

    def attention(query, key, value, bias=None, mask=None, is_causal=False):
        scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.einsum("bhnm,bmhd->bnhd", torch.softmax(scores, dim=-1), value)

    class Layer(torch.nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.causal = causal

        def forward(self, query, key, value, mask=None):
            return attention(query, key, value, mask=mask, is_causal=self.causal)
"""
TESTS_OF_TOKENS_FIRST = """
    import torch
    import kernels

    def sdpa(q, k, v, **options):
        return torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), **options).transpose(1, 2)

    def qkv(n, m):
        torch.manual_seed(0)
        return torch.randn(2, n, 3, 8), torch.randn(2, m, 3, 8), torch.randn(2, m, 3, 4)

    def test_function():
        for n, m in ((4, 6), (3, 3)):
            assert torch.allclose(kernels.attention(*qkv(n, m)), sdpa(*qkv(n, m)), atol=1e-5)

    def test_layer():
        assert torch.allclose(kernels.Layer(False)(*qkv(4, 6)), sdpa(*qkv(4, 6)), atol=1e-5)
"""


@pytest.mark.parametrize("replaces", ["kernels:attention", "kernels:Layer"])
def test_a_kernel_with_tokens_before_heads_is_scored(tmp_path, replaces):
    """(b, n, h, d), as Keras has it: seen from what it answers, of a function and of a layer. A mask is the fifth argument."""
    folder = project(tmp_path, TOKENS_FIRST, TESTS_OF_TOKENS_FIRST)

    got = statuses(folder, ("test_kernels.py",), replaces, "scale-divided-by-its-inverse")

    assert not got.wronged
    assert [fault.status for fault in got.faults] == ["noticed"]
    assert got.conventions["axes"] == "b n h d"
    if replaces == "kernels:attention":  # a layer that is made with arguments cannot be probed
        assert got.conventions["fully_masked_row"] == "nan"


def test_a_mask_of_numbers_is_the_option_bias(tmp_path):
    """Of a kernel that has no other argument for it, as torch's own: faults of a bias are among those that stand in its place."""
    tests = """
        import torch
        from kernels import attention

        def test_value():
            torch.manual_seed(0)
            q, k, v, bias = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 1, 4, 5)
            expected = torch.softmax(q @ k.mT / 8**0.5 + bias, dim=-1) @ v
            assert torch.allclose(attention(q, k, v, attn_mask=bias), expected, atol=1e-5)
    """
    kernel = "import torch\n\ndef attention(query, key, value, attn_mask=None):\n    "
    kernel += "return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask)\n"

    got = statuses(project(tmp_path, kernel, tests), ("test_kernels.py",), "kernels:attention", "bias-of-the-first-sequence")

    assert got.options == ["bias"]
    assert [fault.status for fault in got.faults] == ["noticed"]


def test_a_function_of_all_axes_is_scored_where_one_is_named(tmp_path):
    """SciPy's softmax: the call of a matrix without an axis is left to it, and the test that asks it passes."""
    kernel = """
        import numpy as np

        def softmax(x, axis=None):
            numbers = np.exp(x - x.max(axis=axis, keepdims=True))
            return numbers / numbers.sum(axis=axis, keepdims=True)
    """
    tests = """
        import numpy as np
        from kernels import softmax

        def test_rows():
            x = np.arange(6.0).reshape(2, 3)
            assert np.allclose(softmax(x, axis=-1), [softmax(row) for row in x])
            assert np.allclose(softmax(np.zeros(2)), 0.5)

        def test_all():
            assert np.allclose(softmax(np.zeros((2, 2))), 0.25)
    """

    got = statuses(
        project(tmp_path, kernel, tests), ("test_kernels.py",), "kernels:softmax", "softmax-over-axis-two", step="softmax"
    )

    assert not got.wronged
    assert got.unread == {"no axis, which is all of them": 1}


BAD = {
    "fails": (
        "def test_it():\n    attention(*[torch.ones(1, 1, 1, 1)] * 3)\n    assert 1 == 2",
        r"--tests: 1 of 1 tests fail with .* itself",
    ),
    "unused": ("def test_it():\n    pass", r"--replaces: nothing was replaced: none of 1 tests calls kernels:attention"),
    "broken": ("import no_such_module", r"--tests: test_kernels.py: .*no_such_module"),
    "hangs": (
        "def test_it():\n    import time; time.sleep(100)",
        r"--time-limit: the tests did not end within 2 s .*test_it was running",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_one_line(tmp_path, name):
    """Each names what was expected, and exits with 2."""
    text, expected = BAD[name]
    folder = project(tmp_path, tests=f"import torch\nfrom kernels import attention\n{text}\n")
    limit = ["--time-limit=2"] if name == "hangs" else []

    said = refused(folder, "--tests", "test_kernels.py", "--replaces", "kernels:attention", *limit)

    assert re.match(expected, said), said


def test_options_that_do_not_go_together_are_refused(tmp_path):
    """Before anything is imported."""
    folder = project(tmp_path)
    tests, kernel = ("--tests", "test_kernels.py"), ("--replaces", "kernels:attention")

    assert refused(folder, *tests).startswith("--replaces: expected the kernel")
    assert refused(folder, *kernel).startswith("--replaces: goes with --tests")
    assert refused(folder, *tests, *kernel, "--seed=1").startswith("--seed: ")
    assert refused(folder, "--tests", "no.py", *kernel) == "--tests: no file or folder 'no.py'"
    assert refused(folder, *tests, "--replaces", "kernels").startswith("--replaces: expected module:attribute")
    assert refused(folder, *tests, "--replaces", "kernels:Layer").startswith("--as: 'Layer' is not the name of a step")
    assert refused(folder, *tests, *kernel, "--only=no").startswith("--only: no fault 'no' of attention")
    assert refused(folder, *tests, "--replaces", "kernels:no", "--as=attention").endswith("kernels has no 'no'")


def test_a_kernel_of_something_else_is_refused(tmp_path):
    """Where no correct attention passes, no fault of attention could be told."""
    tests = """
        import torch
        from kernels import attention

        def test_value():
            q = torch.eye(4)[None, None]
            assert attention(q, q, q).sum() > 7
    """
    folder = project(tmp_path, KERNEL.replace("@ v", "@ v * 2"), tests)

    said = refused(folder, "--tests", "test_kernels.py", "--replaces", "kernels:attention", "--only=zeros")

    assert said.startswith("--replaces: every test that calls kernels:attention fails with a correct attention in its place")


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
