"""The page before checkers from outside: that of the W3C, and axe in a real browser. Whichever is not here is skipped."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_runs import everything

from reports.render import render


def test_page_is_valid_by_the_checker_of_the_w3c(tmp_path):
    """Neither an error nor a warning, in HTML, CSS and SVG, on everything a page may hold: the Nu HTML checker."""
    checker = shutil.which("vnu")
    if checker is None:
        pytest.skip("needs the Nu HTML checker as the command vnu, which npm's package vnu-jar brings")
    render([everything(tmp_path / "run")], tmp_path / "out")

    command = [checker, "--also-check-css", "--Werror", str(tmp_path / "out" / "report.html")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_accessibility_by_axe_in_a_real_browser(tmp_path):
    """No violation, light or dark: axe-core in headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    spec = importlib.util.find_spec("axe_core_python")
    if chromium is None or spec is None or spec.origin is None:
        pytest.skip("needs Chromium and the package axe-core-python")
    axe = next(Path(spec.origin).parent.glob("axe*.js")).read_text(encoding="utf-8")
    render([everything(tmp_path / "run")], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)  # axe is a script: only here one may run
    tell = "axe.run().then(found => { document.title = 'violations: ' + found.violations.map(each => each.id).join(' ') + '.' })"
    (tmp_path / "axe.html").write_text(
        text.replace("</body>", f"<script>{axe}</script><script>{tell}</script></body>"), encoding="utf-8"
    )
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    for scheme in ("0", "1"):  # dark, light
        options = [f"--user-data-dir={tmp_path / scheme}", f"--blink-settings=preferredColorScheme={scheme}"]
        command = [chromium, *quiet, *options, "--virtual-time-budget=60000", "--dump-dom", (tmp_path / "axe.html").as_uri()]
        dump = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        assert "<title>violations: .</title>" in dump, re.findall("<title>.*?</title>", dump)
