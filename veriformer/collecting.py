"""A pytest plugin that runs nothing: it writes down the checks that were collected. Loaded by `-p` when a plan is made."""

import json
from pathlib import Path

import pytest

from veriformer.pytest_plugin import planned


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write."""
    parser.addoption("--checks-into", metavar="FILE")


def pytest_collection_finish(session: pytest.Session) -> None:
    """All checks, as JSON."""
    path = Path(str(session.config.getoption("--checks-into")))
    path.write_text(json.dumps(planned(session.items), ensure_ascii=False), encoding="utf-8")
