"""What a run folder is called, and what it says of where it was made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from properties.run import run_folder
from veriformer import packages
from veriformer.cli import main
from veriformer.settings import Refused


@pytest.fixture
def one_second(tmp_path, monkeypatch):
    """An empty folder of a user's, and a clock that stands still."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "time", SimpleNamespace(strftime=lambda _format: "20261201-120000"))


@pytest.mark.parametrize(
    ("command", "runs_it", "name"),
    [
        ("verify reference", "veriformer.progress.verify", "20261201-120000"),
        ("report", "veriformer.commands.report._verify", "20261201-120000"),
        ("bench", "bench.runner.run.run", "20261201-120000-bench"),
        ("bench --counters", "bench.counters.counters.count", "20261201-120000-bench"),
        ("score", "veriformer.commands.score._measured", "score-20261201-120000"),
    ],
)
@pytest.mark.usefixtures("one_second")
def test_runs_of_one_second_have_a_folder_each(command, runs_it, name, monkeypatch):
    """Of each command that names the folder itself."""

    def begin(*_: Any, **__: Any) -> None:
        for folder in Path("runs").iterdir():
            (folder / "begun").touch()
        raise Refused("enough")

    monkeypatch.setattr(runs_it, begin)
    for _ in range(3):
        assert "Error: enough" in CliRunner().invoke(main, command.split()).stderr

    assert sorted(folder.name for folder in Path("runs").iterdir()) == [name, f"{name}-2", f"{name}-3"]


@pytest.mark.usefixtures("one_second")
def test_whoever_makes_a_folder_has_it(monkeypatch):
    """Another process makes it just before this one does."""
    make = Path.mkdir

    def late(folder: Path, *arguments: Any, **options: Any) -> None:
        if folder.name == "20261201-120000":
            make(folder)
        make(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", late)

    with run_folder.new() as folder:
        assert folder == Path("runs/20261201-120000-2")


@pytest.mark.usefixtures("one_second")
def test_a_command_that_writes_nothing_leaves_no_folder():
    """Neither its own nor runs/, unless there is another's in it."""
    with run_folder.new():
        with run_folder.new() as other:
            (other / "manifest.json").touch()
        assert len(list(Path("runs").iterdir())) == 2
    assert list(Path("runs").iterdir()) == [other]

    (other / "manifest.json").unlink()
    other.rmdir()
    with run_folder.new():
        pass
    assert not Path("runs").exists()


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
