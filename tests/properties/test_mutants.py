"""Mutants are what they say: one change each, none twice; a wrong one is found, one that computes the same is not."""

import ast
from itertools import islice

import pytest

from properties.evaluation.detection.fault import RIGHT, standalone
from properties.evaluation.mutants.changes import PLACES, changed, limited, mutants
from properties.evaluation.mutants.run import report, searched


def of(file: str, change: str):
    """The one mutant of a file that has this change."""
    (found,) = [mutant for mutant in mutants(file) if mutant.change == change]
    return found


def test_every_base_is_changed():
    """No file is left out."""
    files = {path.stem for path in RIGHT.glob("*.py")} - {"__init__"}

    assert set(PLACES) == files


@pytest.mark.parametrize("file", ["softmax", "mask", "residual_norm"])
def test_mutants_differ_from_the_right_base_and_from_each_other(file):
    """None is the base itself, or comes twice, and each is a program."""
    right = ast.unparse(ast.parse(standalone(PLACES[file].base)))
    texts = [mutant.text for mutant in mutants(file)]

    assert len(texts) > 10
    assert len({right, *texts}) == len(texts) + 1
    assert all(ast.parse(text) for text in texts)


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("a - b", {"a + b", "a", "b"}),
        ("a <= b", {"a < b", "a > b"}),
        ("not a", {"a"}),
        ("X.mT", {"X"}),
        ("3", {"4", "2"}),
        ("x.amax(dim=-1)", {"x.amin(dim=-1)", "x.amax()", "x"}),
        ("f(a, b)", {"f(b, a)", "a"}),
        ("a if b else c", {"a", "c"}),
    ],
)
def test_what_stands_in_place_of_an_expression(text, others):
    """Each kind of change, in full."""
    assert {ast.unparse(other) for other in changed(ast.parse(text, mode="eval").body)} == others


def test_a_wrong_mutant_is_found_and_one_that_computes_the_same_is_not():
    """Softmax without its maximum overflows; in float32 what is wide already is not widened."""
    wrong, same = searched(of("softmax", "s - largest → s")), searched(of("softmax", "wide(scores) → scores"))

    assert (wrong["found"], wrong["claim"], wrong["verdict"]) == (True, "A5", "FAIL")
    assert not same["found"]
    assert "softmax: 1 of 2 found, 1 of them by a wrong answer\n  softmax: wide(scores) → scores" in report([wrong, same])


def test_one_that_never_ends_is_found_too(monkeypatch):
    """And ends: here buffers that never grow are waited for."""
    monkeypatch.setattr("properties.evaluation.mutants.run.MOST_SECONDS", 4.0)
    loop = "self.K, self.V = (torch.cat([x, torch.zeros_like(x)]"
    endless = next(mutant for mutant in mutants("static_cache") if mutant.change.startswith(loop) and "→ pass" in mutant.change)

    assert searched(endless)["found"]


@pytest.mark.parametrize(
    ("file", "every"),
    [("multi_head", 30), *(pytest.param(file, 10, marks=pytest.mark.long) for file in ("multi_head", "softmax"))],
)
def test_what_is_right_up_to_some_size_is_found(file, every):
    """Small examples alone would let it through. Some are tried."""
    found = [searched(mutant) for mutant in islice(limited(file), 0, None, every)]

    assert found
    assert [line["change"] for line in found if not line["found"]] == []
