"""A pytest plugin that runs nothing: it writes down the checks that were collected. Loaded by `-p` when a plan is made."""

from pathlib import Path

import pytest

from reports.records import encoded
from veriformer.verdict_lines import planned


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write."""
    parser.addoption("--checks-into", metavar="FILE")


def pytest_collection_finish(session: pytest.Session) -> None:
    """All checks, as JSON."""
    path = Path(str(session.config.getoption("--checks-into")))
    path.write_text(encoded(planned(session.items)), encoding="utf-8")
