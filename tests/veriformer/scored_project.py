"""A user's project with a kernel and its tests, and ways to have these scored."""

import contextlib
import json
import textwrap
from pathlib import Path

from click.testing import CliRunner, Result

from reports.tests_score_records import TestsScore
from veriformer.cli import main
from veriformer.users_tests.scored import Progress, Request
from veriformer.users_tests.scored import scored as score_of

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
