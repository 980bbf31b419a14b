"""The GitHub Action and the GitLab template: their own steps, in a project that has folders of our names.

The step that verifies is run as it stands. The one that scores is run with a command in the place of ours that only ends as ours
does: what ours does is tested in `tests.veriformer.test_score_tests`, and costs as much again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree as ET

import pytest
import yaml
from click.testing import CliRunner

from veriformer.cli import main

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "verify"
STEPS = {step["name"]: step for step in yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]}
INPUTS = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["inputs"]
GITLAB = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab.yml").read_text(encoding="utf-8"))

KERNELS = """
    import bench, properties, reference, reports
    import numpy as np

    assert {bench.OF, properties.OF, reference.OF, reports.OF} == {"theirs"}

    def softmax(scores):
        weights = np.exp(1.001 * (scores - np.max(scores, axis=-1, keepdims=True)))
        return weights / weights.sum(axis=-1, keepdims=True)
"""
VERIFY = "--arrays numpy --claims A5 --examples 2 --dtype float32"
SCORES = """
    #!/bin/bash
    [ "$1 $2 $3 $4 $5" = "score --tests tests/test_a.py tests/test_b.py --replaces" ] || exit 99
    mkdir -p "${@: -1}"
    [ "$CODE" -eq 2 ] || echo "# what got through" > "${@: -1}/summary.md"
    exit "$CODE"
"""
"""A command that writes a summary to the folder of its last option, unless it is to end as for what cannot be scored."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A scratch project with a wrong kernel."""
    root = tmp_path_factory.mktemp("project")
    for package in ("bench", "properties", "reference", "reports", "tests"):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text('OF = "theirs"\n', encoding="utf-8")
    (root / "my_kernels.py").write_text(dedent(KERNELS), encoding="utf-8")
    return root


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """A script as either service runs it, our command being that of this Python."""
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {"PATH": path, "HOME": str(folder), "PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False)


def step(name: str, folder: Path, given: dict[str, str], **environment: str) -> tuple[subprocess.CompletedProcess, str]:
    """A step of the action with these inputs: how it ended, and what it adds to the summary of the job."""
    values = {key: about["default"] for key, about in INPUTS.items()} | given
    for variable, text in STEPS[name]["env"].items():
        environment[variable] = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: values[found[1]], text)
    summary = folder / f"{name}.md"
    done = shell(STEPS[name]["run"], folder, GITHUB_STEP_SUMMARY=str(summary), **environment)
    return done, summary.read_text(encoding="utf-8") if summary.exists() else ""


def test_the_action_verifies_a_kernel_and_gitlab_finds_its_junit_report(project):
    """The job is red; its summary says which claim is broken, and the report that GitLab's job names has the numbers."""
    done, summary = step("Verify", project, {"target": "my_kernels:softmax", "verify-options": VERIFY, "output": "veriformer-out"})

    assert done.returncode == 1, done.stderr
    assert summary.startswith("# ✗ 1 of ")
    assert "expected" in summary
    suites = ET.parse(project / GITLAB["veriformer-verify"]["artifacts"]["reports"]["junit"]).getroot()  # noqa: S314 (our own text)
    (suite,) = suites
    assert suite.get("name") == "A5"
    assert int(suite.get("failures", 0)) == len(list(suites.iter("failure"))) > 0
    assert "expected" in next(suites.iter("failure")).get("message", "")


@pytest.mark.parametrize(("code", "required", "ends"), [("0", "false", 0), ("1", "false", 0), ("1", "true", 1), ("2", "false", 2)])
def test_the_action_is_red_for_a_fault_that_got_through_where_that_is_asked_for(code, required, ends, tmp_path):
    """And always for tests that cannot be scored, of which there is no summary."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "veriformer").write_text(dedent(SCORES).lstrip(), encoding="utf-8")
    (tmp_path / "bin" / "veriformer").chmod(0o755)
    given = {"tests": "tests/test_a.py tests/test_b.py", "replaces": "my_kernels:softmax", "require-score": required}

    done, summary = step("Score the tests", tmp_path, given, CODE=code)

    assert done.returncode == ends, done.stderr
    assert summary == ("" if code == "2" else "# what got through\n")


def commands(script: str) -> list[str]:
    """What a script calls of ours, each variable as the action names it."""
    lines = [line.strip() for line in script.splitlines() if line.strip().startswith("veriformer ")]
    names = {"VERIFY_OPTIONS": "options", "SCORE_OPTIONS": "options", "TESTS": "tests", "REPLACES": "REPLACES", "TARGET": "targets"}
    for name, ours in names.items():
        lines = [re.sub(rf"\$VERIFORMER_{name}\b", f"${ours}", line) for line in lines]
    plain = [re.sub(r"\$\{(\w+)\[@\]\}", r"$\1", line).replace("$OUTPUT", "veriformer-out").replace('"', "") for line in lines]
    return [line.partition(" || ")[0] for line in plain]


@pytest.mark.parametrize(("code", "written", "ends"), [("0", True, 0), ("1", True, 1), ("2", False, 2), ("1", False, 2)])
def test_the_job_of_gitlab_is_red_without_a_page(code, written, ends, tmp_path):
    """A fault that got through is a warning there, exit code 1; a command that wrote no page scored nothing, however it ended."""
    (tmp_path / "bin").mkdir()
    text = dedent(SCORES).lstrip().replace('[ "$CODE" -eq 2 ]', "false" if written else "true")
    (tmp_path / "bin" / "veriformer").write_text(text, encoding="utf-8")
    (tmp_path / "bin" / "veriformer").chmod(0o755)
    given = {"TESTS": "tests/test_a.py tests/test_b.py", "REPLACES": "my_kernels:softmax", "SCORE_OPTIONS": ""}

    done = shell(
        "\n".join(GITLAB["veriformer-score"]["script"]),
        tmp_path,
        CODE=code,
        **{f"VERIFORMER_{name}": value for name, value in given.items()},
    )

    assert done.returncode == ends, done.stderr


@pytest.mark.parametrize(("name", "job"), [("Verify", "veriformer-verify"), ("Score the tests", "veriformer-score")])
def test_the_template_of_gitlab_calls_what_the_action_calls(name, job):
    """The same commands with the same options, in the same order."""
    assert commands("\n".join(GITLAB[job]["script"])) == commands(STEPS[name]["run"]) != []


def test_every_option_of_the_templates_exists():
    """Those that they give themselves."""
    texts = [text for each in STEPS.values() for text in re.findall(r"veriformer .*", each.get("run", ""))]
    texts += [line for job in ("veriformer-verify", "veriformer-score") for line in GITLAB[job]["script"]]
    for command in ("verify", "score"):
        known = CliRunner().invoke(main, [command, "--help"]).output
        given = {option for text in texts if f"veriformer {command} " in text for option in re.findall(r"(--\w+)", text)}
        assert given
        assert {option for option in given if not re.search(rf"{option}\b", known)} == set()


def test_the_page_names_every_input():
    """And the default of each."""
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")

    for name, about in INPUTS.items():
        assert f"| `{name}` |" in page, name
        assert about["description"].partition(", as on")[0].partition(".")[0] in page, name
    for name in GITLAB["variables"]:
        assert re.search(rf"\b{name}\b", page), name
