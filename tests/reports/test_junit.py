"""The verdicts of a run as JUnit XML: every check, counted as CI servers count."""

from xml.etree import ElementTree as ET

import sample_runs

from reports.findings import Findings
from reports.folders import read
from reports.junit import junit

HOSTILE = "\x1b[31m <&> \x00 ]]> \ud800 \ufffe"
KINDS = {
    "PASS": "",
    "SUSPECT": "",
    "KNOWN_FAILURE": "",
    "UNSUPPORTED": "skipped",
    "FAIL": "failure",
    "CRASH": "failure",
    "VACUOUS": "failure",
}


def findings(folder):
    """What a report says of a run."""
    return Findings(read(folder))


def test_every_check_is_a_test(tmp_path):
    """A broken one is a failure, one that did not run an error, one that is not offered skipped, any other passed."""
    lines = [sample_runs.check("A5", f"test_{kind.lower()}", "optimized", "float32", verdict=kind) for kind in KINDS]
    lines.append(sample_runs.check("A5", "test_of_ours", "optimized", "float32", verdict="ERROR", suite_error="KeyError: ours"))
    planned = [*sample_runs.planned(lines), {**sample_runs.planned(lines)[0], "property": "test_missing"}]

    suites = ET.fromstring(junit(findings(sample_runs.write(tmp_path / "run", lines, planned=planned))))  # noqa: S314 (our own)

    (suite,) = suites
    got = {case.get("name"): case[0].tag if len(case) else "" for case in suite}
    assert got == {f"test_{kind.lower()}": tag for kind, tag in KINDS.items()} | {"test_of_ours": "error", "test_missing": "error"}
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "9",
        "failures": "3",
        "errors": "2",
        "skipped": "1",
    }


def test_a_text_that_xml_cannot_hold_is_told_without_it(tmp_path):
    """Control characters, lone surrogates, noncharacters: spelled out or replaced; what XML would take for its own is escaped."""
    lines = [sample_runs.check("A5", "test_agrees", "optimized", "float32", verdict="FAIL", message=HOSTILE)]
    found = findings(sample_runs.write(tmp_path / "run", lines))

    failure = next(ET.fromstring(junit(found)).iter("failure"))  # noqa: S314 (our own text)

    assert failure.get("message") == "\\x1b[31m <&> \\x00 ]]> \\ud800 \ufffd"
    assert failure.text.startswith("Softmax turns scores into probabilities")
