"""A disk without room: one line that names the file, exit code 2, what was finished is kept and nothing half-written is left.

`/dev/full` takes nothing: a file that is a link to it is on a disk that filled up.
"""

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from properties.run import run_folder
from reports.folders import write_whole
from veriformer import engine
from veriformer.cli import main

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def test_a_line_that_does_not_fit_is_told_with_its_file(tmp_path):
    """In words a user understands."""
    path = tmp_path / "verify.jsonl"
    path.symlink_to(FULL)

    with pytest.raises(run_folder.Unwritable) as told:
        run_folder.append(path, {"kind": "verdict"})

    assert str(told.value) == f"{path}: No space left on device; what was finished before is on disk"


def test_a_manifest_that_does_not_fit_leaves_the_old_one(tmp_path):
    """And no half of a new one."""
    run_folder.create(tmp_path, {"planned": []})
    before = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json.unfinished").symlink_to(FULL)

    with pytest.raises(run_folder.Unwritable, match="No space left"):
        run_folder.rewrite(tmp_path, {"planned": ["more"]})

    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == before


def test_a_report_that_does_not_fit_leaves_the_old_one(tmp_path):
    """Likewise."""
    page = write_whole(tmp_path / "report.html", "old")
    (tmp_path / "report.html.unfinished").symlink_to(FULL)

    with pytest.raises(OSError, match=r"No space left on device: .*report\.html'"):
        write_whole(page, "new")

    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert page.read_text() == "old"


def test_a_benchmark_on_a_full_disk_says_so(tmp_path, monkeypatch):
    """Exit code 2, one line, no traceback."""

    def full(path: Path, _line: object) -> None:
        raise run_folder.Unwritable(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "append", full)
    asked = ["bench", "--workloads", "mask.512@n=4+m=4", "--peers", "optimized", "--time-limit", "1s", "--processes", "2"]
    ended = CliRunner().invoke(main, [*asked, "--run", str(tmp_path / "run")])

    assert ended.exit_code == 2
    assert ended.stderr.splitlines()[-1].startswith(f"Error: {tmp_path}/run/bench.jsonl: No space left on device; what was")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["bench_planned"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_verification_that_cannot_write_says_so(tmp_path, workers):
    """Whether one process verifies or several; here something else has the file's name."""
    (tmp_path / "run" / "verify.jsonl").mkdir(parents=True)
    asked = engine.Request(targets=("optimized",), dtypes=("float32",), claims=("M1",), run=tmp_path / "run", workers=workers)

    ended = engine.run(asked)

    assert ended.refusal == f"{tmp_path}/run/verify.jsonl: Is a directory; what was finished before is on disk"
