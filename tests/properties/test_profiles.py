"""What decides which examples Hypothesis draws: the profile, the claim and `--seed`, and not the variable CI."""

import importlib
import os
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import core, given
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


def test_a_test_without_a_seed_draws_alike():
    """As every test beside the properties does; by night it does not."""

    def unseeded() -> list[int]:
        drawn.clear()

        @given(number=st.integers())
        def noted(number: int) -> None:
            drawn.append(number)

        noted()
        return list(drawn)

    assert core.global_force_seed == 0
    assert unseeded() == unseeded()


def test_by_night_or_with_a_seed_nothing_is_fixed(monkeypatch):
    """The seed of the command line stays, and a random profile stays random."""
    monkeypatch.setattr(core, "global_force_seed", 5)
    with profiles.the_same_examples():
        assert core.global_force_seed == 5
    monkeypatch.setattr(core, "global_force_seed", None)
    monkeypatch.setattr(profiles, "is_random", lambda: True)
    with profiles.the_same_examples():
        assert core.global_force_seed is None


def test_a_profile_is_in_force_for_a_while():
    """Its examples and its database, for properties that were imported under another."""
    with profiles.in_force("nightly"):
        assert profiles.is_random()
        assert profiles.examples_in_each(1) == 1000
        with drawing(numbers, 1):
            assert numbers._hypothesis_internal_use_settings.database is hypothesis.settings().database is not None

    assert not profiles.is_random()
    with profiles.in_force(None), drawing(numbers, 1):
        assert numbers._hypothesis_internal_use_settings.database is None


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
