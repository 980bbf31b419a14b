"""The report: what it must say, what it must never say, and the form it comes in."""

import csv
import importlib.util
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample_runs
from sample_runs import everything

from reports.findings import Findings
from reports.folders import ReportError, read
from reports.page import SECTIONS
from reports.render import PAGE_LIMIT, SUMMARY_LIMIT, render
from reports.summary import exit_code

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e|`$\n# [x](http://y.example)"


class Page(HTMLParser):
    """A page read strictly: tags must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        """Note the tag."""
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """An element of SVG that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        """It must close the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep what a reader sees."""
        if not self.open or self.open[-1] not in {"style", "title"}:
            self.text.append(data)

    def words(self) -> str:
        """The visible text, its white space made even."""
        return " ".join(" ".join(self.text).split())


def report(folder: Path, out: Path, **options) -> tuple[Page, str]:
    """Render one folder; the page, parsed, and the Markdown."""
    render([folder], out, **options)
    return Page((out / "report.html").read_text(encoding="utf-8")), (out / "summary.md").read_text(encoding="utf-8")


def test_page_has_every_section_in_order_with_or_without_data(tmp_path):
    """A section without data says which command makes it."""
    for name, folder in (("full", everything(tmp_path / "full")), ("bare", sample_runs.write(tmp_path / "bare"))):
        page, _ = report(folder, tmp_path / f"{name}-out")

        assert [given["id"] for tag, given in page.tags if tag == "section"] == [section for section, _ in SECTIONS]
    assert "veriformer bench" in page.words()
    assert "veriformer score" in page.words()
    assert "veriformer calibrate" in page.words()


def test_same_folders_give_the_same_bytes(tmp_path):
    """The report is a pure function of the run: of every file it writes."""
    folder = everything(tmp_path / "run")

    (first, _), (second, _) = (render([folder], tmp_path / name) for name in ("one", "two"))

    assert len(first) > 10
    for one, two in zip(first, second, strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes(), one.name


def test_page_is_one_offline_file(tmp_path):
    """It loads nothing, runs nothing, and forbids both."""
    page, _ = report(everything(tmp_path / "run"), tmp_path / "out")

    assert not [tag for tag, _ in page.tags if tag in {"script", "iframe", "object", "embed", "img"}]
    for tag, given in page.tags:
        assert not [name for name in given if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert (given.get(name) or "#").startswith(("#", "data:")), (tag, given)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_every_link_inside_the_page_arrives(tmp_path):
    """Several figures of one library share a page without sharing names."""
    page, _ = report(everything(tmp_path / "run"), tmp_path / "out")

    ids = Counter(given["id"] for _, given in page.tags if "id" in given)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, given in page.tags:
        targets = [(given.get("href") or "#")[1:], *(given.get("aria-labelledby") or "").split()]
        assert [target for target in targets if target and target not in ids and not target.startswith("ata:")] == []


def test_page_can_be_read_without_seeing_it(tmp_path):
    """Landmarks, one h1, captions and scopes, a title and a description for every figure, regions that scroll by keyboard."""
    page, _ = report(everything(tmp_path / "run"), tmp_path / "out")
    count = Counter(tag for tag, _ in page.tags)

    assert count["main"] == count["h1"] == count["header"] == count["nav"] == 1
    assert count["caption"] == count["table"] > 5
    assert [given for tag, given in page.tags if tag == "th" and "scope" not in given] == []
    figures = [given for tag, given in page.tags if tag == "svg" and given.get("aria-hidden") != "true"]
    assert len(figures) == 5
    assert all(given["role"] == "img" and given["aria-labelledby"] for given in figures)
    assert all(given["tabindex"] == "0" and given["aria-label"] for _, given in page.tags if given.get("role") == "region")
    assert ("html", {"lang": "en"}) in page.tags


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
    unsupported = sample_runs.check("A5", "p", "torch", "float32", verdict="UNSUPPORTED", share=None)
    for name, lines in (("empty", []), ("unsupported", [unsupported])):
        folder = sample_runs.write(tmp_path / name, lines)

        page, _ = report(folder, tmp_path / "out")

        assert "Nothing was verified" in page.words()
        assert exit_code(Findings(read(folder))) == 5


def test_run_of_timings_alone_says_so(tmp_path):
    """It claims no verdict on claims, and is not red for it."""
    folder = sample_runs.write(tmp_path / "run", [], sample_runs.bench())

    page, _ = report(folder, tmp_path / "out")

    assert "Timed, and not verified claim by claim" in page.words()
    assert exit_code(Findings(read(folder))) == 0


def test_broken_claim_has_a_card_with_all_a_person_needs(tmp_path):
    """Statement, formula, input, expected and got, share of the budget, and the line that runs it again."""
    page, markdown = report(everything(tmp_path / "run"), tmp_path / "out")

    for text in (page.words(), " ".join(markdown.split())):
        for wanted in (
            "Softmax turns scores into probabilities",
            "c = 16384.",
            "41.3 × the budget",
            "--claims A5 --dtype float64 --seed 0",
        ):
            assert wanted in text
    assert ("article", {"class": "card", "id": "card-1", "aria-labelledby": "card-1-title"}) in page.tags
    assert ("a", {"class": "cell bad", "href": "#card-1"}) in page.tags


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


def test_infinite_errors_and_defects_of_the_suite_are_on_the_page(tmp_path):
    """A NaN is infinitely far over its budget; an error of ours is said to be ours, in the page and in the summary."""
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL", "share": "Infinity", "expected": "1.0", "got": "nan"}
    lines[-1] |= {"verdict": "ERROR", "share": None, "suite_error": "ZeroDivisionError: division by zero (budgets.py:1 in score)"}

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


def test_hostile_names_do_nothing(tmp_path):
    """Tags, attributes, escape sequences, turned text, table bars and links stay text, wherever a name can stand."""
    lines = [
        sample_runs.check("A5", HOSTILE, HOSTILE, "float32", verdict="FAIL", message=HOSTILE, counterexample=HOSTILE, got=HOSTILE),
        sample_runs.check("M3", "p", HOSTILE, "float32", device=HOSTILE),
    ]
    bench = sample_runs.bench()
    for line in bench:
        line.update({name: HOSTILE for name in ("workload", "message", "really", "family") if name in line})
        if line.get("peer") == "optimized":
            line["peer"] = HOSTILE
    environment = sample_runs.ENVIRONMENT | {"processor": HOSTILE, HOSTILE: HOSTILE}
    folder = sample_runs.write(tmp_path / "run", lines, bench, id=HOSTILE, environment=environment)

    page, markdown = report(folder, tmp_path / "out")

    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert "alert(1)" in page.words()
    for written in (text, markdown):
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", written)
    outside_code = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)[<\[](?=script|img|x)", outside_code)
    rows = [line for line in outside_code.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_tables_are_files_that_no_spreadsheet_executes(tmp_path):
    """Every check is in checks.csv; a name that begins like a formula is made a text, a negative number stays one."""
    line = sample_runs.check("A5", "=cmd|' /C calc'!A0", "torch", "float32", expected="-inf", got="@x")

    render([sample_runs.write(tmp_path / "run", [line])], tmp_path / "out")

    with (tmp_path / "out" / "tables" / "checks.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["property"].startswith("'=")
    assert row["got"] == "'@x"
    assert row["expected"] == "-inf"
    assert (tmp_path / "out" / "tables" / "checks.parquet").exists() == (importlib.util.find_spec("pyarrow") is not None)


def test_page_and_summary_stay_within_their_limits(tmp_path):
    """A hundred and fifty claims, broken on three implementations with long counterexamples: lists are cut, and say by how much."""
    claims = [sample_runs.CLAIMS[0] | {"id": f"X{i}"} for i in range(150)]
    lines = sample_runs.checks(claims, implementations=[f"mine.kernels:number_{i}" for i in range(3)])
    lines = [line | {"verdict": "FAIL", "counterexample": "x = " + "0.125, " * 500, "message": "wrong " * 100} for line in lines]

    _, markdown = report(sample_runs.write(tmp_path / "run", lines, claims=claims), tmp_path / "out")

    assert (tmp_path / "out" / "report.html").stat().st_size <= PAGE_LIMIT
    assert len(markdown.encode()) <= SUMMARY_LIMIT
    assert "more in report.html" in markdown


def test_a_page_of_many_implementations_shows_the_first_and_says_how_many_more(tmp_path):
    """Hundreds of columns do not fit; all of them are in the table."""
    lines = sample_runs.checks(implementations=[f"kernels.py:number_{i}" for i in range(300)])
    claims = [*sample_runs.CLAIMS, *(sample_runs.CLAIMS[0] | {"id": f"X{i}"} for i in range(60))]

    _, markdown = report(sample_runs.write(tmp_path / "run", lines, claims=claims), tmp_path / "out")

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= PAGE_LIMIT
    assert len(markdown.encode()) <= SUMMARY_LIMIT
    assert page.count('<th scope="row">kernels.py:number_') == 120
    assert "780 more: <code>tables/matrix.csv</code>" in page
    assert "more columns in tables/matrix.csv" in markdown
    assert "number_299 bfloat16 cpu" in (tmp_path / "out" / "tables" / "matrix.csv").read_text(encoding="utf-8")


def test_several_folders_are_one_run_and_other_code_is_refused(tmp_path):
    """Shards are rendered together; a run of other code is not mixed in, and nothing is written."""
    lines = sample_runs.checks()
    halves = [sample_runs.write(tmp_path / name, part) for name, part in (("a", lines[::2]), ("b", lines[1::2]))]
    foreign = sample_runs.write(tmp_path / "c", environment=sample_runs.ENVIRONMENT | {"code": "0ther"})

    render(halves, tmp_path / "out")

    assert "36 of 36 planned checks ran" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    with pytest.raises(ReportError, match="different code"):
        render([*halves, foreign], tmp_path / "other")
    assert not (tmp_path / "other").exists()


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


def test_detection_score_stands_beside_the_usual_checks(tmp_path):
    """The worst seed counts; what was missed, what never caught anything and what is out of scope are named."""
    folder = sample_runs.write(tmp_path / "run")
    (folder / "score.json").write_text(json.dumps(sample_runs.score(missed="cache-stale")), encoding="utf-8")

    page, markdown = report(folder, tmp_path / "out")

    for wanted in (
        "this suite, at the worst of 2 seeds 2 3 67 %",
        "assert_close on normal inputs 1 3 33 %",
        "✗ 1 missed cache-stale",
        "4 correct implementations, 120 checks: none was flagged",
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
