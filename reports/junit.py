"""The verdicts of a run as JUnit XML, which CI servers show beside other tests: a suite a claim, a test a planned check.

A broken check is a failure (of the suite's own making: an error), one that did not run an error, and a step that is not offered is
skipped: a skip never counts as passed.
"""

import re
from typing import Any
from xml.etree import ElementTree as ET

from reports.findings import Findings
from reports.outcomes import BY_NAME
from reports.words import absent

NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML cannot hold, not even escaped
PLAIN = ("PASS", "SUSPECT", "KNOWN_FAILURE")


def junit(found: Findings) -> str:
    """The XML."""
    suites = ET.Element("testsuites", name="veriformer")
    for claim, checks in found.checks.groupby("claim", sort=False):
        rows = checks.to_dict("records")
        kinds = [_kind(row) for row in rows]
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=claim,
            tests=str(len(rows)),
            failures=str(kinds.count("failure")),
            errors=str(kinds.count("error")),
            skipped=str(kinds.count("skipped")),
            time=f"{checks['seconds'].sum():.3f}",
        )
        for row, kind in zip(rows, kinds, strict=True):
            _case(suite, row, kind, str(found.claims.loc[claim, "statement"]))
    ET.indent(suites)
    text = NOT_XML.sub("\ufffd", ET.tostring(suites, encoding="unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _kind(row: dict[str, Any]) -> str:
    verdict = row["verdict"]
    if verdict == "UNSUPPORTED":
        return "skipped"
    if verdict == "MISSING" or _given(row["suite_error"]):
        return "error"
    return "" if verdict in PLAIN else "failure"


def _case(suite: ET.Element, row: dict[str, Any], kind: str, statement: str) -> None:
    where = f"{row['implementation']} {row['dtype']}" + (f" {row['device']}" if row["device"] != "cpu" else "")
    about = {"classname": f"{row['claim']}.{where}", "name": row["property"], "time": f"{row['seconds']:.3f}"}
    case = ET.SubElement(suite, "testcase", about)
    if kind:
        said = next((row[name] for name in ("suite_error", "message") if _given(row[name])), BY_NAME[row["verdict"]].meaning)
        outcome = ET.SubElement(case, kind, type=row["verdict"], message=said)
        if kind != "skipped":
            outcome.text = "\n".join(part for part in (statement, row["counterexample"]) if _given(part))


def _given(value: Any) -> bool:
    return not absent(value) and bool(value)
