"""The table of forms of attention: each has laws and at least three faults, all of them caught, and the page has it as printed."""

import json
from pathlib import Path

from properties.evaluation.option_rows import ROWS, SCORE, printed, table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMITTED = json.loads(SCORE.read_text(encoding="utf-8"))


def test_every_form_has_laws_and_faults_that_are_caught():
    """At least three of each, and nothing correct is flagged."""
    lines = table(COMMITTED)

    assert [line[0] for line in lines] == [row.name for row in ROWS]
    assert all(int(laws) >= 3 and int(faults) >= 3 and faults == caught for _, laws, faults, caught in lines)
    assert COMMITTED["correct"]["flagged"] == {}


def test_the_page_has_the_table_as_it_is_printed():
    """Line by line, the number of rows of the covering array among them."""
    missing = [line for line in printed(COMMITTED) if line not in PAGE]

    assert missing == []
