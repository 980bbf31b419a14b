"""The report: the form it comes in."""

import csv
import importlib.util
import re
from collections import Counter

import pytest
import sample_runs
from sample_runs import everything
from strict_page import report

from reports.folders import ReportError
from reports.page import SECTIONS
from reports.render import PAGE_LIMIT, SUMMARY_LIMIT, render

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e|`$\n# [x](http://y.example)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a run with everything in it, and where it is."""
    folder = tmp_path_factory.mktemp("whole")
    page, _ = report(everything(folder / "run"), folder / "out")
    return page, folder / "out"


def test_page_has_every_section_in_order_with_or_without_data(whole, tmp_path):
    """A section without data says which command makes it."""
    full, _ = whole

    bare, _ = report(sample_runs.write(tmp_path / "bare"), tmp_path / "out")

    for page in (full, bare):
        assert [given["id"] for tag, given in page.tags if tag == "section"] == [section for section, _ in SECTIONS]
    assert "veriformer bench" in bare.words()
    assert "veriformer score" in bare.words()
    assert "veriformer calibrate" in bare.words()


def test_same_folders_give_the_same_bytes(whole, tmp_path):
    """The report is a pure function of the run: of every file it writes."""
    _, first = whole

    again, _ = render([first.parent / "run"], tmp_path)

    assert len(again) > 10
    assert {path.relative_to(tmp_path) for path in again} == {path.relative_to(first) for path in first.rglob("*.*")}
    for path in again:
        assert path.read_bytes() == (first / path.relative_to(tmp_path)).read_bytes(), path.name


def test_page_is_one_offline_file(whole):
    """It loads nothing, runs nothing, and forbids both."""
    page, out = whole

    assert not [tag for tag, _ in page.tags if tag in {"script", "iframe", "object", "embed", "img"}]
    for tag, given in page.tags:
        assert not [name for name in given if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert (given.get(name) or "#").startswith(("#", "data:")), (tag, given)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_every_link_inside_the_page_arrives(whole):
    """Several figures of one library share a page without sharing names."""
    page, _ = whole

    ids = Counter(given["id"] for _, given in page.tags if "id" in given)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, given in page.tags:
        targets = [(given.get("href") or "#")[1:], *(given.get("aria-labelledby") or "").split()]
        assert [target for target in targets if target and target not in ids and not target.startswith("ata:")] == []


def test_page_can_be_read_without_seeing_it(whole):
    """Landmarks, one h1, captions and scopes, a title and a description for every figure, regions that scroll by keyboard."""
    page, _ = whole
    count = Counter(tag for tag, _ in page.tags)

    assert count["main"] == count["h1"] == count["header"] == count["nav"] == 1
    assert count["caption"] == count["table"] > 5
    assert [given for tag, given in page.tags if tag == "th" and "scope" not in given] == []
    figures = [given for tag, given in page.tags if tag == "svg" and given.get("aria-hidden") != "true"]
    assert len(figures) == 5
    assert all(given["role"] == "img" and given["aria-labelledby"] for given in figures)
    assert all(given["tabindex"] == "0" and given["aria-label"] for _, given in page.tags if given.get("role") == "region")
    assert ("html", {"lang": "en"}) in page.tags


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
