"""What decides which examples Hypothesis draws: the profile, the claim and `--seed`, and not the variable CI."""

import importlib
import os
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.claims import claim
from properties.verdict import profiles
from properties.verdict.judge import drawing, seed_of

drawn: list[int] = []


@claim("A5")
@given(number=st.integers())
def numbers(number):
    """A property that notes what it is given."""
    drawn.append(number)


def examples(seed: int) -> list[int]:
    """The examples `numbers` draws for `--seed seed`."""
    drawn.clear()
    with drawing(numbers, seed_of("A5", "numbers", "float32", seed)):
        numbers()
    return list(drawn)


def test_one_seed_draws_the_same_examples_again():
    """Twice the same seed, twice the same examples."""
    assert examples(0) == examples(0)


def test_what_else_is_imported_changes_no_example(tmp_path, monkeypatch):
    """Hypothesis would draw the constants of any module of the project: other ones in each worker, and with each user."""
    before = examples(0)
    monkeypatch.setattr("hypothesis.internal.conjecture.providers.is_local_module_file", lambda _path: True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "with_numbers.py").write_text(f"NUMBERS = {[7**k for k in range(5, 300)]}\n")
    importlib.import_module("with_numbers")

    assert examples(0) == before


def test_two_seeds_draw_different_examples():
    """The seed is not ignored (as it is under `derandomize=True`)."""
    assert examples(0) != examples(1)


def test_two_properties_draw_different_examples_from_one_seed():
    """The seed of a property comes from its claim, its name and the dtype, too."""
    told = [(claim, name, dtype) for claim in ("A5", "A9") for name in ("one", "two") for dtype in ("float32", "float16")]

    assert len({seed_of(*each, 0) for each in told}) == 8


def test_several_dtypes_share_the_work():
    """Together they see more examples than one alone would, each fewer."""
    alone, each = (profiles.examples_in_each(dtypes) for dtypes in (1, 2))

    assert alone == profiles.EXAMPLES[profiles.DEFAULT]
    assert alone / 2 <= each < alone


def test_all_that_are_built_in_are_asked_alike():
    """In one dtype as many examples as in several: of another number the same seed draws other ones, with budgets of their own."""
    assert profiles.examples_in_each(1, named=False) == profiles.examples_in_each(4, named=False) < profiles.examples_in_each(4)


def test_by_night_nobody_is_asked_less(monkeypatch):
    """In one dtype all examples of the profile, named or not."""
    nightly = hypothesis.settings.get_profile("nightly")
    monkeypatch.setattr(hypothesis, "settings", lambda: nightly)

    assert profiles.examples_in_each(1, named=False) == profiles.EXAMPLES["nightly"]


@pytest.mark.parametrize("name", profiles.EXAMPLES)
def test_a_profile_is_the_one_described(name):
    """Number of examples, no deadline, no blob; only the nightly one remembers."""
    profile = hypothesis.settings.get_profile(name)

    assert profile.max_examples == profiles.EXAMPLES[name]
    assert profile.deadline is None
    assert not profile.print_blob
    assert not profile.derandomize
    assert (profile.database is not None) == (name == "nightly")


def test_a_set_ci_variable_does_not_bring_back_hypothesis_own_profile():
    """Hypothesis loads a profile called `ci`, which derandomises, where CI is set: ours is there under that name."""
    code = "import hypothesis as h; from properties.verdict import profiles; profiles.register(); print(h.settings().derandomize)"
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "False"
