"""What the report says of verdicts: what is missing, unsupported or broken, and a card for each failure."""

import sample_runs
from sample_runs import everything
from strict_page import report

from reports.findings import Findings
from reports.folders import read
from reports.summary import exit_code


def test_missing_check_is_red_and_counted(tmp_path):
    """It is in the headline's numbers, in the matrix and in a list; with nothing else wrong the exit code is 5."""
    lines = sample_runs.checks()
    folder = sample_runs.write(tmp_path / "run", lines[1:], planned=sample_runs.planned(lines))

    page, markdown = report(folder, tmp_path / "out")

    assert "the run is incomplete" in page.words()
    assert "35 of 36 planned checks ran · 1 missing" in page.words()
    assert ("span", {"class": "cell bad"}) in page.tags
    assert f"test_rows_sum_to_one on {lines[0]['implementation']}" in page.words()
    assert "1 planned check did not run" in markdown
    assert exit_code(Findings(read(folder))) == 5


def test_unsupported_is_never_a_pass(tmp_path):
    """A claim whose properties are all about steps not offered holds nowhere; one in part holds in part."""
    line = sample_runs.check("A5", "one", "torch", "float32")
    none = {"verdict": "UNSUPPORTED"}

    for lines, word in ([line | none], "UNSUPPORTED"), ([line, line | {"property": "two"} | none], "PARTIAL"), ([line], "PASS"):
        grid = Findings(read(sample_runs.write(tmp_path / word, lines))).matrix

        assert grid.loc["A5"].tolist() == [word]


def test_claims_that_were_not_run_are_seen(tmp_path):
    """A catalogue's claim without a check is named at the top and marked in its row; a study is not."""
    folder = sample_runs.write(tmp_path / "run", [line for line in sample_runs.checks() if line["claim"] != "M3"])

    page, _ = report(folder, tmp_path / "out")

    assert "1 claim not run: M3" in page.words()
    assert page.words().count("influence a token. not run") == 1


def test_run_that_verified_nothing_is_red(tmp_path):
    """Nothing planned, or nothing but steps not offered: that proves nothing."""
    unsupported = sample_runs.check("A5", "p", "torch", "float32", verdict="UNSUPPORTED", budget_used=None)
    for name, lines in (("empty", []), ("unsupported", [unsupported])):
        folder = sample_runs.write(tmp_path / name, lines)

        page, _ = report(folder, tmp_path / "out")

        assert "Nothing was verified" in page.words()
        assert exit_code(Findings(read(folder))) == 5


def test_broken_claim_has_a_card_with_all_a_person_needs(tmp_path):
    """What is wrong first; then statement, formula, input, expected and got, share of the budget, and the line that replays it."""
    page, markdown = report(everything(tmp_path / "run"), tmp_path / "out")

    for text in (page.words(), " ".join(markdown.split())):
        for wanted in (
            "Softmax turns scores into probabilities",
            "c = 16384.",
            "expected 1.0, got 0.0",
            "41.3 × the budget",
            "--claims A5 --dtype float64 --seed 0",
        ):
            assert wanted in text
    assert ("article", {"class": "card", "id": "card-1", "aria-labelledby": "card-1-title"}) in page.tags
    assert ("a", {"class": "cell bad", "href": "#card-1"}) in page.tags


def test_infinite_errors_and_defects_of_the_suite_are_on_the_page(tmp_path):
    """A NaN is infinitely far over its budget; an error of ours is said to be ours, in the page and in the summary."""
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL", "budget_used": "Infinity", "expected": "1.0", "got": "nan"}
    lines[-1] |= {
        "verdict": "ERROR",
        "budget_used": None,
        "suite_error": "ZeroDivisionError: division by zero (budgets.py:1 in score)",
    }

    page, markdown = report(sample_runs.write(tmp_path / "run", lines), tmp_path / "out")

    for text in (page.words(), markdown):
        assert "∞ × the budget" in text
        assert "ZeroDivisionError: division by zero" in text


def test_claim_that_refers_to_the_counterexample_of_another_is_shown_with_it(tmp_path):
    """Two claims broken by one failure: the smallest input that it has stands with both."""
    lines = sample_runs.checks()
    first, second = (next(line for line in lines if line["claim"] == claim) for claim in ("A5", "M3"))
    for line in (first, second):
        line |= {"verdict": "FAIL", "failure": "mine-softmax-wrong-1", "message": "off"}
    first |= {"counterexample": "x = 0.125"}
    second |= {"refers": True}

    page, markdown = report(sample_runs.write(tmp_path / "run", lines), tmp_path / "out")

    for text in (page.words(), markdown):
        assert text.count("x = 0.125") == 2


def test_card_is_of_the_worst_verdict_of_its_claim(tmp_path):
    """As the cell of the matrix that leads to it."""
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL", "counterexample": "x = 0"}
    other = next(line for line in lines if line["property"] != lines[0]["property"] and line["claim"] == lines[0]["claim"])
    other |= {"verdict": "CRASH", "message": "it crashed", "counterexample": "x = 0.125"}

    page, _ = report(sample_runs.write(tmp_path / "run", lines), tmp_path / "out")

    assert "it crashed † crashed A5" in page.words()


def test_card_begins_with_what_is_wrong(tmp_path):
    """Its heading, in the page and in the summary."""
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "CRASH", "message": f"{lines[0]['implementation']}.softmax was killed by SIGSEGV during the call"}

    page, markdown = report(sample_runs.write(tmp_path / "run", lines), tmp_path / "out")

    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<h3 id="card-1-title">softmax crashed (SIGSEGV) during the call</h3>' in text
    assert f"† crashed A5 in {lines[0]['implementation']} float64" in page.words()
    assert "### † softmax crashed (SIGSEGV) during the call" in markdown


def test_known_failures_have_their_reasons(tmp_path):
    """Once for all dtypes."""
    lines = [
        line | ({"verdict": "KNOWN_FAILURE", "message": "its fast path returns NaN"} if line["implementation"] == "torch" else {})
        for line in sample_runs.checks()
    ]

    page, markdown = report(sample_runs.write(tmp_path / "run", lines), tmp_path / "out")

    for text in (page.words(), markdown):
        assert text.count("A5 in torch (float64, float32, bfloat16): its fast path returns NaN") == 1
