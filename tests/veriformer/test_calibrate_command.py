"""`veriformer calibrate --write` puts what it measured beside what the file has of other kinds."""

import json

import pytest
from click.testing import CliRunner

from veriformer.cli import main

ASKED = ["calibrate", "--checks", "0", "--modules", "0", "--trials", "0", "--backward", "0", "--options", "1", "--dtype", "float32"]


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 3}', '{"float32": 3}'])
def test_a_file_of_something_else_is_refused_before_anything_is_measured(text, tmp_path):
    """One line that names it, and it stays as it was."""
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")

    done = CliRunner().invoke(main, [*ASKED, "--run", str(tmp_path / "run"), "--write", str(tmp_path / "mine.json")])

    assert done.exit_code == 2
    assert "mine.json: expected the summary of a calibration" in done.output
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == text
    assert not (tmp_path / "run").exists()


def test_what_was_not_asked_for_stays(tmp_path):
    """Of the same dtype, and other dtypes whole."""
    written = tmp_path / "calibration.json"
    before = {"float32": {"steps": {"checks": 1}, "options": {"checks": 0}}, "float16": {"steps": {"checks": 2}}}
    written.write_text(json.dumps(before), encoding="utf-8")

    done = CliRunner().invoke(main, [*ASKED, "--jobs", "1", "--run", str(tmp_path / "run"), "--write", str(written)])

    assert done.exit_code == 0, done.output
    found = json.loads(written.read_text(encoding="utf-8"))
    assert found["float16"] == before["float16"]
    assert found["float32"]["steps"] == {"checks": 1}
    assert found["float32"]["options"]["checks"] > 100
    assert json.loads((tmp_path / "run" / "calibration.json").read_text(encoding="utf-8")).keys() == {"float32"}
