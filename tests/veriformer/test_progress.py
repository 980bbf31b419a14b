"""The progress of a run is read from its folder as it grows, and what it comes to from the whole of it."""

import io
import json
from contextlib import contextmanager

import pytest
from rich.console import Console

from properties.run import run_folder
from veriformer.progress import Watch
from veriformer.results import Results
from veriformer.show import Cards, show

CHECKS = [
    {"claim": claim, "property": f"p_{claim}", "implementation": "mine", "dtype": "float32", "device": "cpu"}
    for claim in ("A5", "A7")
]


class Bar:
    """What a bar was told."""

    def show(self, what, done, planned):
        """Keep it."""
        self.said = (what, done, planned)

    @contextmanager
    def aside(self):
        """Nothing is in the way."""
        yield


def line(check: dict, verdict: str) -> dict:
    """A verdict line about this check."""
    return {"kind": "verdict", **check, "verdict": verdict, "seed": 0, "isolated": True}


@pytest.fixture
def folder(tmp_path):
    """A run with two planned checks."""
    run_folder.create(tmp_path / "run", {"planned": CHECKS})
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


def test_a_card_is_printed_as_its_verdict_falls_and_never_again(folder):
    """One for each failure, by the verdict that has its counterexample, though one that refers to it came first."""
    output = io.StringIO()
    cards = Cards(Console(file=output, width=120))
    watch = Watch(folder, Bar(), cards)
    new = {"failure": "mine-softmax-wrong-1", "message": "off by 3"}
    seen = []
    for each in ({"refers": True}, {"counterexample": "x = 1"}, {"refers": True}):
        run_folder.append(folder / "verify.jsonl", line(CHECKS[len(seen) % 2], "FAIL") | new | each)
        watch.look()
        seen.append(output.getvalue().count("╭"))
    show(Results.of(folder), cards)

    assert seen == [0, 1, 1]
    text = output.getvalue()
    assert text.count("╭") == 1
    assert text.index("x = 1") < text.index("worst error / budget") < text.index("mine-softmax-wrong-1: 3 checks of A5 A7")


def test_a_failure_whose_counterexample_never_came_is_shown_at_the_end(folder):
    """Whoever was to explain it was ended: those that refer to it still make a card."""
    output = io.StringIO()
    run_folder.append(
        folder / "verify.jsonl", line(CHECKS[0], "FAIL") | {"failure": "mine-1", "refers": True, "message": "off by 3"}
    )

    show(Results.of(folder), Cards(Console(file=output, width=120)))

    assert output.getvalue().count("off by 3") == 1


@pytest.mark.parametrize(
    ("maxfail", "told"), [(1, "1 not run because of --maxfail 1"), (2, "1 planned and not run"), (None, "1 planned")]
)
def test_what_did_not_run_is_told_from_what_was_not_wanted(tmp_path, maxfail, told):
    """As many checks as --maxfail says must be broken for it to be the reason."""
    run_folder.create(tmp_path / "run", {"planned": CHECKS} | ({"maxfail": maxfail} if maxfail else {}))
    run_folder.append(tmp_path / "run" / "verify.jsonl", line(CHECKS[0], "FAIL"))
    output = io.StringIO()
    results = Results.of(tmp_path / "run")

    show(results, Cards(Console(file=output, width=120)))

    assert told in output.getvalue()
    assert results.exit_code == 1


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
        run_folder.append(folder / "verify.jsonl", line(check, verdict))

    results = Results.of(folder)

    assert results.exit_code == code
    assert len(results.missing) == len(CHECKS) - len(verdicts)
