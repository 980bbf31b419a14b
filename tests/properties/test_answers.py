"""The catalogue of answers: whatever an implementation returns is a verdict about it, by every way in."""

import contextlib
import html
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from properties.evaluation.answers import catalogue
from properties.implementations.impl import Impl
from reports.records import Exit
from reports.render import render
from veriformer import answers, engine, verify
from veriformer.answers import ASKED, FOLDER, Case, acts, exit_code, in_this_process, lines, of, shortcomings
from veriformer.results import Results
from veriformer.show import Cards, show

TIMES = tuple(catalogue.WHENS)
SINGLE = ("nan__always", "keyboard_interrupt__always", "html__once", "system_exit_0__first", "our_words_alone__always")


def cases(when: str) -> list[Case]:
    """Each answer at one of the times; `veriformer score` has put each at every time (`test_detection`)."""
    return [case for i, case in enumerate(answers.cases(when)) if when == TIMES[i % len(TIMES)]]


def started(*command: str) -> subprocess.CompletedProcess:
    """A command of ours, run where the catalogue lies."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-m", *command], capture_output=True, text=True, check=False, cwd=FOLDER, env=environment
    )


def by_pytest(when: str, run: Path) -> int:
    """As a user's own pytest is started; its output is as printable as ours."""
    claim, examples = ASKED[when]
    targets = ",".join(case.target for case in cases(when))
    options = [f"--implementation={targets}", f"--claims={claim}", f"--examples={examples}", f"--run={run}", "--tb=line"]
    ended = started("pytest", "--pyargs", "properties", *options)

    assert not acts(ended.stdout + ended.stderr)
    assert "INTERNALERROR" not in ended.stdout.replace("INTERNALERROR> x", "")  # which an answer says
    return ended.returncode


def by_verify(when: str, run: Path) -> int:
    """As `veriformer verify` does it."""
    return engine.run(answers.request(cases(when), run), folder=FOLDER).code


@pytest.mark.parametrize(
    ("when", "way"),
    [
        ("always", by_pytest),
        ("first", by_verify),
        ("once", by_pytest),
        pytest.param("later", by_verify, marks=pytest.mark.long),
    ],
)
def test_every_answer_gets_the_verdict_it_deserves(when, way, tmp_path):
    """All planned checks ran; exit code, card, page, merged run, and what is said of the same object in this process."""
    code = way(when, tmp_path / "run")
    results = Results.of(tmp_path / "run")

    assert code == Exit.BROKEN
    assert len(lines(tmp_path / "run" / "verify.jsonl")) == len(results.planned) >= 2 * len(cases(when))
    assert [f"{case.target}: {said}" for case in cases(when) for said in shortcomings(of(results, case), case)] == []
    for case in cases(when):
        assert_on_a_terminal(of(results, case), case)
        assert_said_here_too(of(results, case), case)
    assert_merged(tmp_path / "run", tmp_path)
    assert_on_the_page(tmp_path / "run", results, when, tmp_path / "page")


def assert_on_a_terminal(results: Results, case: Case) -> None:
    """A card that names the implementation, the verdict and what it said, or the line that all passed."""
    output = io.StringIO()
    show(results, Cards(Console(file=output, width=2000, highlight=False)))
    text = output.getvalue()

    assert not acts(text)
    assert "planned and not run" not in text
    if exit_code(case) == Exit.GOOD:
        assert f"{len(results.planned)} PASS" in text
    else:
        cards = [card for card in text.split("╭")[1:] if case.target in card]
        assert any(case.row.words in card and verdict in card for card in cards for verdict in case.row.verdict.split()), text


def assert_said_here_too(results: Results, case: Case) -> None:
    """The same verdicts in this process; once it has failed, a new process counts its calls anew."""
    here = in_this_process(case)
    there = {each.name: each.verdict for each in results.findings}

    assert here.keys() == there.keys()
    said = {judgement.verdict for judgement in here.values()} - {"PASS"}
    assert said <= set(case.row.verdict.split())  # what is said once may be said to a probe, which only a run of its own asks
    assert bool(said) == bool(set(there.values()) - {"PASS"})
    if case.when == "always":
        assert {name: judgement.verdict for name, judgement in here.items()} == there
    assert not [judgement.suite_error for judgement in here.values() if judgement.suite_error or acts(judgement.message)]


def assert_merged(run: Path, folder: Path) -> None:
    """Two halves of the run make the run again."""
    whole = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    verdicts = (run / "verify.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    for half in (0, 1):
        part = folder / f"half-{half}"
        part.mkdir()
        (part / "manifest.json").write_text(json.dumps(whole | {"planned": whole["planned"][half::2]}), encoding="utf-8")
        (part / "verify.jsonl").write_text("".join(f"{line}\n" for line in verdicts[half::2]), encoding="utf-8")

    merged = started("veriformer", "merge", str(folder / "half-0"), str(folder / "half-1"), "-o", str(folder / "merged"))

    assert merged.returncode == 0, merged.stderr
    assert f"{len(verdicts)} verdicts of 2 runs, 0 planned and missing" in merged.stdout
    assert sorted(lines(folder / "merged" / "verify.jsonl"), key=str) == sorted(lines(run / "verify.jsonl"), key=str)


def assert_on_the_page(run: Path, results: Results, when: str, out: Path) -> None:
    """A row for each implementation, and a card for each whose claim is broken that says what came, none of it as markup."""
    render([run], out)
    page = (out / "report.html").read_text(encoding="utf-8")
    cards = page.split('<article class="card"')[1:]

    assert not acts(page)
    assert not acts((out / "summary.md").read_text(encoding="utf-8"))
    assert "<script" not in page
    for case in cases(when):
        assert f'<th scope="row">{case.target}</th>' in page
        if exit_code(case) == Exit.BROKEN:
            words = html.escape(case.row.words).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")  # as Jinja escapes them
            assert any(words in card for card in cards if f" in {case.target} " in card), case.target


@pytest.mark.parametrize("name", [pytest.param(SINGLE[-2], marks=pytest.mark.long), SINGLE[-1]])
def test_a_strange_answer_by_the_command(name, tmp_path):
    """`veriformer verify` of one file: its exit code, its card and its JSON; nothing of a traceback."""
    case = Case(*name.split("__"))
    ended = started("veriformer", "verify", case.target, "--claims=A8", "--examples=3", f"--run={tmp_path / 'run'}")

    assert ended.returncode == Exit.BROKEN, ended.stderr
    assert shortcomings(Results.of(tmp_path / "run"), case) == []
    assert not acts(ended.stdout)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert any(verdict in ended.stdout for verdict in case.row.verdict.split())
    assert lines(tmp_path / "run" / "verify.jsonl")


def test_every_check_of_a_function_that_gives_nan_has_a_verdict(tmp_path):
    """Of all that is planned for an attention: no check is lost to the first NaN."""
    options = ("--dtype=float32", "--examples=2", "--json")
    ended = started("veriformer", "verify", "catalogue.py:nan__always", *options, f"--run={tmp_path / 'run'}")
    told = json.loads(ended.stdout, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))

    assert ended.returncode == told["exit_code"] == Exit.BROKEN
    assert len(told["verdicts"]) == told["planned"] > 200
    assert told["missing"] == []


@pytest.mark.parametrize("name", SINGLE)
def test_a_strange_answer_in_python(name):
    """`veriformer.verify` of an object that no other process can import."""
    found = verify(getattr(catalogue, name), claims="A8", examples=3)

    assert len(found) == 2
    assert not found
    assert not found.missing
    assert not acts(repr(found))
    assert {each.verdict for each in found.broken} <= set(Case(*name.split("__")).row.verdict.split())


def test_a_strange_answer_in_python_by_name(monkeypatch):
    """`veriformer.verify` of a name, in a process of its own."""
    monkeypatch.chdir(FOLDER)

    found = verify("catalogue.py:control__always", claims="A8", examples=3)

    assert [each.verdict for each in found] == ["ERROR", "ERROR"]
    assert not acts(repr(found))


def test_a_ctrl_c_while_an_implementation_runs_here_is_the_users():
    """Whatever the implementation does with it; one that it raises itself is its own."""

    class Waits:
        name, arrays, dtypes, conventions, steps = "waits", "torch", ("float32",), None, frozenset({"softmax"})

        def softmax(self, scores):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            return scores.softmax(-1)

    with pytest.raises(KeyboardInterrupt):
        Impl(Waits(), "float32").softmax(np.zeros((1, 2)))
