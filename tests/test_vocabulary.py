"""The code speaks the field's language: words of veriformer 0.1 that nobody outside knew stay gone.

`docs/glossary.md` maps the article's words to the field's. The article's own words stand where the article is quoted.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GONE = {
    "blind_row": "fully_masked_row",
    "blind_softmax": "fully_masked_softmax",
    "may_look": "true_attends",
    "source_real": "source_mask",
    "target_real": "target_mask",
    "may look": "may attend",
    "look nowhere": "fully masked",
    "filling words?": "padding token",
    "start word": "start token",
    "end word": "end token",
    "dictionary": "vocabulary",
    "subjects?": "implementation",
    "honest": "correct",
    "cr(y|ies) wolf": "false positive",
    "false alarms?": "false positive",
    "(?<!examples/)deviations": "σ",
    "taps": "intermediates",
    "twins?": "base",
    "door": "command line",
    "house rules": "repository rules",
    "rounding machine": "rounding simulator",
}
QUOTED = {  # files that quote the article, or name what is gone on purpose
    "properties/conventions/declarations.py",
    "tests/properties/test_declarations.py",
    "tests/test_vocabulary.py",
    "docs/glossary.md",
    "CHANGELOG.md",
    "docs/claims.md",
}
FILES = [
    path
    for package in ("optimized", "properties", "veriformer", "bench", "reports", "tests", "examples", "docs")
    for path in (ROOT / package).rglob("*")
    if path.suffix in (".py", ".md", ".jinja2") and "runs" not in path.relative_to(ROOT).parts
]


@pytest.mark.parametrize("word", GONE)
def test_old_words_are_gone(word):
    """Each stands nowhere but where it is quoted."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*FILES, *ROOT.glob("*.md")]
        if path.relative_to(ROOT).as_posix() not in QUOTED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(rf"\b{word}\b", line, re.IGNORECASE)
    ]

    assert found == [], f"{word} is called {GONE[word]}"
