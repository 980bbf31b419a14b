"""Run folders as they come: whole, torn, foreign, empty, contradictory, hostile."""

import itertools
import json
from pathlib import Path

import pytest
import sample_runs
from click.testing import CliRunner

from properties.run import run_folder
from reports import outcomes, records
from reports.folders import ReportError, read, visible
from reports.records import BROKEN, Verdict
from reports.tables import checks, missing
from veriformer.commands import report as report_command


def refusal(folder: Path) -> str:
    """What `read` says against a folder: one line."""
    with pytest.raises(ReportError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_report_ranks_verdicts_as_the_terminal_does():
    """One order, worst first; what only a report says (missing, in part, not planned) stands between."""
    of_a_line = [outcome.name for outcome in outcomes.OUTCOMES if outcome.name in set(Verdict)]

    assert of_a_line == list(Verdict)
    assert {outcome.name for outcome in outcomes.OUTCOMES if outcome.tone == "bad"} == BROKEN | {"MISSING"}
    for one, other in itertools.combinations(Verdict, 2):
        if {one, other} != {Verdict.PASS, Verdict.UNSUPPORTED}:
            assert outcomes.worst([other, one]) == records.worst([other, one]) == one


def test_torn_last_line_is_tolerated_noted_and_its_check_is_missing(tmp_path):
    """A run that was killed while it wrote: everything before the cut counts, the cut check is red."""
    folder = sample_runs.write(tmp_path / "run")
    path = folder / "verify.jsonl"
    path.write_bytes(path.read_bytes()[:-40])

    run = read(folder)

    assert len(run.verdicts) == len(sample_runs.checks()) - 1
    assert "cut off" in run.notes[0]
    assert len(missing(checks(run))) == 1


def test_line_cut_between_two_lines_is_refused(tmp_path):
    """Damage that is not at the end is no kill but corruption."""
    folder = sample_runs.write(tmp_path / "run")
    lines = (folder / "verify.jsonl").read_text(encoding="utf-8").splitlines()
    lines[4] = lines[4][:50]
    (folder / "verify.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert "verify.jsonl, line 5: expected JSON" in refusal(folder)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ({"schema": 1}, "this run has schema 1, written by veriformer 0.1; veriformer 0.2 reads schema 2"),
        ({}, "this run has schema 1, written by veriformer 0.1; veriformer 0.2 reads schema 2"),
        ({"schema": 3}, "this run has schema 3, written by another version; veriformer 0.2 reads schema 2"),
        ({"schema": [2]}, "this run has schema [2], written by another version; veriformer 0.2 reads schema 2"),
    ],
)
def test_run_of_another_schema_is_told_which_version_reads_it(tmp_path, number, said):
    """Whatever its lines are like: one line and exit code 2. A manifest of the first schema may name none."""
    folder = sample_runs.write(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["schema"]
    (folder / "manifest.json").write_text(json.dumps(manifest | number), encoding="utf-8")
    (folder / "verify.jsonl").write_text('{"of": "old"}\n', encoding="utf-8")

    assert refusal(folder) == f"{folder}: {said}"
    result = CliRunner().invoke(report_command.command, [str(folder)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, f"Error: {folder}: {said}")


def test_run_that_is_made_now_has_the_schema_that_is_read(tmp_path):
    """In its manifest and in every line."""
    run_folder.create(tmp_path / "run", {"planned": []})
    run_folder.append(tmp_path / "run" / "verify.jsonl", {})

    written = [json.loads((tmp_path / "run" / name).read_text(encoding="utf-8")) for name in ("manifest.json", "verify.jsonl")]
    assert [each["schema"] for each in written] == [2, 2]


@pytest.mark.parametrize("name", ["verify.jsonl", "bench.jsonl"])
def test_line_of_another_schema_is_refused(tmp_path, name):
    """Whatever another version meant by its fields, it is not guessed."""
    folder = sample_runs.write(tmp_path / "run", bench=sample_runs.bench())
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8").replace('"schema": 2', '"schema": 1', 1), encoding="utf-8")

    assert f"{name}, line 1: expected schema 2, got 1" in refusal(folder)


def test_score_of_another_schema_is_refused(tmp_path):
    """A score beside a run names its own schema."""
    folder = sample_runs.write(tmp_path / "run")
    (folder / "score.json").write_text(json.dumps(sample_runs.score() | {"schema": 1}), encoding="utf-8")

    assert "score.json: expected schema 2, got 1" in refusal(folder)


def test_folders_that_are_none_are_refused(tmp_path):
    """Nothing there, a file, an empty folder: each has its own message."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()

    assert "found nothing there" in refusal(tmp_path / "gone")
    assert "found a file" in refusal(tmp_path / "file")
    assert "manifest.json" in refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "expected a JSON object, got list"),
        ("{", "expected JSON"),
        ('{"schema": 2, "budget_used": NaN}', "NaN, which is not a JSON number"),
        ('{"schema": 2, "claim": "A5"}', "missing required field `property`"),
        (json.dumps(sample_runs.check("A5", "p", "torch", "float32", verdict="MAYBE")), "Invalid enum value 'MAYBE'"),
        ("[" * 20_000, "expected JSON"),
    ],
)
def test_malformed_verdict_is_refused_by_file_and_line(tmp_path, line, message):
    """The message names the file and the line."""
    folder = sample_runs.write(tmp_path / "run", [])
    (folder / "verify.jsonl").write_text(line + "\n", encoding="utf-8")

    assert "verify.jsonl, line 1" in refusal(folder)
    assert message in refusal(folder)


def test_bench_line_without_a_field_a_report_needs_is_refused(tmp_path):
    """No report is made of half a measurement."""
    cell = next(line for line in sample_runs.bench() if line["what"] == "cell")
    del cell["status"]

    assert "missing required field `status`" in refusal(sample_runs.write(tmp_path / "run", bench=[cell]))


def test_of_two_bench_lines_with_one_name_the_last_counts(tmp_path):
    """A resumed run derives its cells anew."""
    cell = next(line for line in sample_runs.bench() if line["what"] == "cell")

    run = read(sample_runs.write(tmp_path / "run", bench=[cell, cell | {"median_ns": 5.0}]))

    assert [line["median_ns"] for line in run.bench] == [5.0]


def test_check_judged_twice_keeps_the_worse_verdict_and_says_so(tmp_path):
    """A second try may not paint a failure green."""
    line = sample_runs.check("A5", "p", "torch", "float32")
    for lines in ([line, line | {"verdict": "FAIL"}], [line | {"verdict": "FAIL"}, line]):
        run = read(sample_runs.write(tmp_path / lines[0]["verdict"], lines))

        assert [each.verdict for each in run.verdicts] == ["FAIL"]
        assert "judged twice" in run.notes[0]


def test_control_and_formatting_characters_are_spelled_out():
    """No name can move a terminal's cursor, turn text round or hide."""
    assert visible("a\x1b[2Jb\u202ec\u200b\ud800\x00") == "a\\x1b[2Jb\\u202ec\\u200b\\ud800\\x00"
    assert visible({"k\x07": ["é\n\t∑"]}) == {"k\\x07": ["é\n\t∑"]}
