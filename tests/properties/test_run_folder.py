"""What a run folder says of where it was made."""

import pytest

from properties.run import run_folder
from veriformer import packages


@pytest.mark.parametrize("package", packages.PACKAGES)
def test_two_runs_of_different_code_are_told_apart(package, tmp_path, monkeypatch):
    """Whichever package of ours is another."""
    for each in packages.PACKAGES:
        (tmp_path / each).mkdir()
        (tmp_path / each / "file.py").write_text("one", encoding="utf-8")
    monkeypatch.setattr(run_folder, "ROOT", tmp_path)
    before = run_folder.code_hash()
    assert run_folder.code_hash() == before

    (tmp_path / package / "file.py").write_text("another", encoding="utf-8")

    assert run_folder.code_hash() != before
