"""What the report says of the suite itself: the detection score and the calibration beside the run."""

import json

import pytest
import sample_runs
from strict_page import report

from reports.folders import ReportError
from reports.render import render


def test_detection_score_stands_beside_the_baseline_checks(tmp_path):
    """The worst seed counts; what was missed, what never caught anything and what is out of scope are named."""
    folder = sample_runs.write(tmp_path / "run")
    (folder / "score.json").write_text(json.dumps(sample_runs.score(missed="cache-stale")), encoding="utf-8")

    page, markdown = report(folder, tmp_path / "out")

    for wanted in (
        "this suite, at the worst of 2 seeds 2 3 67 %",
        "assert_close on normal inputs 1 3 33 %",
        "✗ 1 missed cache-stale",
        "False positives: none in 4 correct implementations (120 checks)",
        "Claims that never caught anything: M3",
        "paged-cache : no pages here",
    ):
        assert wanted in page.words()
    assert "Missed: cache-stale." in markdown
    assert (tmp_path / "out" / "tables" / "detection.csv").exists()


def test_calibration_stands_beside_other_rules(tmp_path):
    """Counts beside rates, ours beside the others."""
    folder = sample_runs.write(tmp_path / "run")
    (folder / "calibration.json").write_text(json.dumps(sample_runs.calibration()), encoding="utf-8")

    page, _ = report(folder, tmp_path / "out")

    assert "float32 30 000 steps 0 (0 %) 1 650 (5.5 %)" in page.words()
    assert "float32 22 21 15 head × 1.001" in page.words()
    assert "float32 2^−19.5 2^−9.9" in page.words()


@pytest.mark.parametrize("name", ["score", "calibration"])
def test_malformed_result_of_another_command_is_refused(tmp_path, name):
    """One line names the file; nothing is written."""
    folder = sample_runs.write(tmp_path / "run")
    told = {"score": sample_runs.score() | {"classes": [{"x": 1}]}, "calibration": {"float32": {"steps": {}}}}[name]
    (folder / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")

    with pytest.raises(ReportError, match=f"{name}.json: expected the file that veriformer writes"):
        render([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
