"""What an implementation was found to follow stands first, beside what PyTorch does: on the terminal, in the run, on the page."""

import io
import json
import textwrap

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from properties.conventions import followed as words
from properties.implementations.convention_probes import settle
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from reports import merge
from reports.cards import alike
from reports.folders import read
from reports.records import Choice, Follows, plain
from reports.render import render
from tests import sample_runs
from veriformer import progress
from veriformer.cli import main
from veriformer.results import Results
from veriformer.show import Cards, show

NAN = Choice("fully_masked_row", "attention of a fully masked row", "nan", "NaN", "found", "zeros", True)
KEPT = Choice("subnormals", "subnormal numbers", "kept", "kept", "declared", "kept")
FOLLOWS = [Follows("mine:attention", dtype, "cpu", [NAN, KEPT], "split_k=2") for dtype in ("float64", "float32")]
MINE = """
    import math, torch

    def attention(Q, K, V, mask=None):
        scores = Q @ K.mT / math.sqrt(Q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.softmax(scores, dim=-1) @ V
"""


def test_dtypes_that_follow_the_same_share_a_line():
    """One that follows something else has its own."""
    other = Follows("mine:attention", "bfloat16", "cpu", [KEPT], "split_k=2")

    both, one = alike([*FOLLOWS, other])

    assert (both.where, both.found, both.declared) == ("float64, float32", "fully_masked_row=nan", "subnormals=kept")
    assert both.differing == ["attention of a fully masked row: NaN (torch: zeros; fully_masked_row=nan, found)"]
    assert (one.where, one.differing) == ("bfloat16", [])


def test_what_was_found_stands_before_everything_else(tmp_path):
    """Conventions, what PyTorch does otherwise, and the contract in force."""
    run = sample_runs.write(tmp_path / "run", [sample_runs.check("A5", "test_agrees", "mine:attention", "float64", verdict="FAIL")])
    printed = io.StringIO()

    show(Results(run, Results.of(run).findings, [], FOLLOWS), Cards(Console(file=printed, width=120)))

    first, second, third, fourth, fifth, *_ = printed.getvalue().splitlines()
    assert first.split() == ["mine:attention", "in", "float64,", "float32"]
    assert second.split() == ["found", "by", "probes", "fully_masked_row=nan"]
    assert third.split() == ["declared", "subnormals=kept"]
    assert fourth.startswith("differs from torch  attention of a fully masked row: NaN (torch: zeros;")
    assert fifth.split() == ["contract", "split_k=2"]


def test_the_page_the_summary_and_a_table_show_them(tmp_path):
    """And so does a run that was merged of two."""
    runs = [
        read(
            sample_runs.write(tmp_path / name, [sample_runs.check("A5", prop, "mine:attention", "float64")], follows=plain(follows))
        )
        for name, prop, follows in (("one", "test_agrees", FOLLOWS[:1]), ("two", "test_rows_sum_to_one", FOLLOWS))
    ]
    whole = tmp_path / "whole"
    merge.write(merge.merged(runs), whole, runs)

    render((whole,), whole, None)

    assert read(whole).follows == FOLLOWS
    for file in ("report.html", "summary.md"):
        assert "attention of a fully masked row: NaN (torch: zeros" in (whole / file).read_text().replace("\\\\", "").replace(
            "\\", ""
        )
    assert "mine:attention,float32,cpu,fully_masked_row" in (whole / "tables" / "conventions.csv").read_text()


def test_what_pytorch_does_is_probed_and_not_written_down(monkeypatch):
    """With another implementation in its place, the comparison is with that one."""
    impl = Impl(built_in("optimized"), "float32")
    settled = settle(impl, impl.adapter.conventions)

    class Other:
        name, arrays, dtypes, steps, conventions = "torch.sdpa", "numpy", ("float32",), frozenset({"softmax"}), None

        def softmax(self, scores):
            return np.full_like(scores, 1 / scores.shape[-1])

    def of_softmax() -> tuple[str, bool]:
        words.of_torch.cache_clear()
        (choice,) = (each for each in words.followed(impl, settled).conventions if each.name == "fully_masked_softmax")
        return choice.torch, choice.differs

    assert of_softmax() == ("NaN", True)
    monkeypatch.setattr(words, "built_in", lambda _: Other())
    assert of_softmax() == ("equal weights", True)
    monkeypatch.undo()
    words.of_torch.cache_clear()


def test_pytorch_does_not_differ_from_itself():
    """It has nothing to be compared with."""
    impl = Impl(built_in("torch.sdpa"), "float32")

    found = words.followed(impl, settle(impl, impl.adapter.conventions))

    assert not any(choice.differs or choice.torch for choice in found.conventions)
    assert {choice.name for choice in found.conventions if choice.how == "found"} >= {
        "causal_alignment",
        "subnormals",
        "out_of_range_token",
    }


def test_a_function_of_ten_lines_is_told_what_was_found(tmp_path, monkeypatch):
    """NaN for a fully masked row, found by a probe. The manifest holds the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    asked = ["verify", "mine:attention", "--claims=M2", "--dtype=float32", "--examples=3", "--run=found"]

    said = CliRunner().invoke(main, asked)

    assert said.exit_code == 0, said.output
    assert (
        "found by probes     fully_masked_row=nan non_finite_behind_mask=leaks subnormals=kept non_finite_masked_key=blocked"
        in said.stdout
    )
    assert "differs from torch  attention of a fully masked row: NaN (torch: zeros; fully_masked_row=nan, found)" in said.stdout
    (follows,) = json.loads((tmp_path / "found" / "manifest.json").read_text())["follows"]
    assert {each["name"] for each in follows["conventions"] if each["how"] == "found"} == {
        "fully_masked_row",
        "non_finite_behind_mask",
        "non_finite_masked_key",
        "subnormals",
    }


def test_a_target_that_does_not_follow_the_library_it_is_said_to_be_like_is_told_so(tmp_path, monkeypatch):
    """Its causal mask is aligned to the bottom right, where PyTorch's is to the top left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import numpy as np\n\n\ndef mask(n, m):\n    return np.tri(n, m, m - n, dtype=bool)\n")

    said = CliRunner().invoke(
        main, ["verify", "mine:mask", "--arrays=numpy", "--like=torch", "--claims=M1", "--dtype=float32", "--examples=2"]
    )

    assert said.exit_code == 1, said.output
    assert "M1  CONVENTION_MISMATCH  mine:mask" in said.stdout
    assert "causal_alignment: declared top_left, but the probe shows bottom_right" in said.stdout
    assert "1 CONVENTION_MISMATCH" in said.stdout.splitlines()[-1]


@pytest.mark.parametrize("what", ["conventions", "libraries"])
def test_conventions_and_libraries_are_listed(what):
    """With what each choice means, and where a library says so."""
    rows = json.loads(CliRunner().invoke(main, ["list", what, "--json"]).stdout)

    assert {"convention", "choice"} <= rows[0].keys()
    assert all(row["meaning"] if what == "conventions" else row["source"] for row in rows)


def test_a_folder_of_libraries_that_is_not_there_is_said(tmp_path):
    """Not a table of libraries that were not run."""
    done = CliRunner().invoke(main, ["libraries", "--read", "--run", str(tmp_path / "typo")])

    assert done.exit_code == 2
    assert "--run: expected a folder of runs to read" in done.output
    assert "not run" not in done.output


def test_a_folder_to_join_into_that_is_in_use_is_refused_before_anything_is_verified(tmp_path, monkeypatch):
    """It would be an hour's work, and nowhere to put it."""
    monkeypatch.setattr(progress, "verify", lambda _: pytest.fail("verified"))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.md").touch()

    done = CliRunner().invoke(main, ["libraries", f"--run={tmp_path / 'new'}", f"--join={tmp_path / 'kept'}"])

    assert done.exit_code == 2
    assert f"--join {tmp_path / 'kept'}: expected a new or empty folder, found one in use" in done.output
    assert "| implementation |" not in done.output
