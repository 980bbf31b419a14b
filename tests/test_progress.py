"""The progress of a run is read from its folder as it grows, and what it comes to from the whole of it."""

import json

import pytest

from properties import runs
from veriformer.progress import Watch
from veriformer.results import Results

CHECKS = [
    {"claim": claim, "property": f"p_{claim}", "implementation": "mine", "dtype": "float32", "device": "cpu"}
    for claim in ("A5", "A7")
]


class Bar:
    """What a bar was told."""

    def show(self, what, done, planned):
        """Keep it."""
        self.said = (what, done, planned)


def line(check: dict, verdict: str) -> dict:
    """A verdict line about this check."""
    return {"kind": "verdict", **check, "verdict": verdict, "seed": 0, "isolated": True}


@pytest.fixture
def folder(tmp_path):
    """A run with two planned checks."""
    runs.create(tmp_path / "run", {"planned": CHECKS})
    return tmp_path / "run"


def test_progress_counts_whole_lines_only(folder):
    """A line that is being written counts when it is whole, and only once."""
    bar = Bar()
    watch = Watch(folder, bar)
    watch.look()
    assert bar.said == ("0 of 2 claims, 0 checks broken", 0, 2)

    text = json.dumps(line(CHECKS[0], "FAIL")) + "\n"
    for part in (text[:20], text[20:], ""):
        with (folder / "verify.jsonl").open("a") as file:
            file.write(part)
        watch.look()

    assert bar.said == ("1 of 2 claims, 1 checks broken", 1, 2)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["PASS", "PASS"], 0),
        (["PASS", "SUSPECT"], 0),
        (["PASS", "KNOWN_FAILURE"], 0),
        (["PASS", "UNSUPPORTED"], 0),
        (["UNSUPPORTED", "UNSUPPORTED"], 5),
        (["PASS"], 5),
        ([], 5),
        (["PASS", "FAIL"], 1),
        (["VACUOUS"], 1),
        (["PASS", "UNEXPECTED_PASS"], 1),
    ],
)
def test_the_exit_code_says_what_a_run_comes_to(folder, verdicts, code):
    """A broken claim is 1; what was planned and did not run is 5, and so is a run in which nothing was verified."""
    for check, verdict in zip(CHECKS, verdicts, strict=False):
        runs.append(folder / "verify.jsonl", line(check, verdict))

    results = Results.of(folder)

    assert results.exit_code == code
    assert len(results.missing) == len(CHECKS) - len(verdicts)
