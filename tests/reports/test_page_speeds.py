"""What the report says of timings: no speed for a wrong result, nothing untimed unseen, units and legends where they are needed."""

import sample_runs
from strict_page import report

from reports.findings import Findings
from reports.folders import read
from reports.summary import exit_code


def test_run_of_timings_alone_says_so(tmp_path):
    """It claims no verdict on claims, and is not red for it."""
    folder = sample_runs.write(tmp_path / "run", [], sample_runs.bench())

    page, _ = report(folder, tmp_path / "out")

    assert "Timed, and not verified claim by claim" in page.words()
    assert exit_code(Findings(read(folder))) == 0


def test_wrong_result_has_no_speed(tmp_path):
    """Even where the run's file holds one: the claim that failed stands in its place, in the page, the Markdown and the table."""
    bench = sample_runs.bench()
    for line in bench:
        if line["what"] == "cell" and line["peer"] == "optimized":
            line["gate"] |= {"verdict": "FAIL", "message": "41 × the budget"}
    folder = sample_runs.write(tmp_path / "run", bench=bench)

    page, markdown = report(folder, tmp_path / "out")

    found = Findings(read(folder))
    assert found.timed.loc[found.timed["peer"] == "optimized", ["median_ns", "tokens_per_s", "roof_share"]].isna().all(axis=None)
    assert "optimized" not in set(found.ratios["peer"]) | set(found.growth["peer"])
    assert "A6 broken: no speed" in page.words()
    assert "A6 broken: no speed" in markdown
    assert "gave a wrong result" in page.words()
    assert exit_code(found) == 1


def test_planned_cell_that_was_not_timed_is_red(tmp_path):
    """It has a row and no speed."""
    folder = sample_runs.write(tmp_path / "run", bench=sample_runs.bench(), bench_planned=["mask n=8/float32/cpu/1t/torch"])

    page, _ = report(folder, tmp_path / "out")

    assert "9 of 10 planned timings ran" in page.words()
    assert "planned, and not measured" in page.words()


def test_peers_that_are_not_installed_are_named_once_and_did_not_run(tmp_path):
    """Not a row for each of their cells, and none of them among the timings that ran."""
    bench = sample_runs.bench()
    gone = [line for line in bench if line["what"] == "cell" and line["peer"] == "optimized"]
    for line in gone:
        line |= {
            "status": "not installed",
            "message": "jax is not installed: the extra `jax` of veriformer brings it",
            "gate": None,
        }
    cells = sum(line["what"] == "cell" for line in bench)

    page, markdown = report(sample_runs.write(tmp_path / "run", bench=bench), tmp_path / "out")

    assert f"{cells - len(gone)} of {cells} planned timings ran · {len(gone)} of peers not installed" in page.words()
    for text in (page.words(), markdown):
        assert text.count("jax is not installed") == 1
        assert f"({len(gone)} cells)" in text


def test_report_against_another_run_shows_what_changed(tmp_path):
    """Changed verdicts and ratios of ratios, with both codes named."""
    before = sample_runs.write(tmp_path / "before", bench=sample_runs.bench())
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL"}
    after = sample_runs.write(tmp_path / "after", lines, sample_runs.bench(slower=1.2))

    page, markdown = report(after, tmp_path / "out", against=before)

    assert "1 verdict changed" in page.words()
    assert "1.200 [1.183, 1.217] slower" in page.words()
    assert "3 cells slower" in markdown
