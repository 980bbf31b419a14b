"""How hard Hypothesis looks: `quick` while working, `ci` on every change, `nightly` to find what nobody has seen yet.

`derandomize=True` would ignore every seed, so `quick` and `ci` are deterministic another way: each property is seeded from its
claim, its name, the dtype and `--seed` (`judgement.seed_of`), any other test by `the_same_examples`, and no database brings back
examples of an earlier run. Wherever the variable CI is set Hypothesis selects a profile of its own called `ci`: ours is registered
in its place. And Hypothesis likes to draw the numbers that stand in whichever modules of the project are imported by then, which is
another choice in every process: no setting turns that off, so its list of them is kept empty.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import hypothesis
from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

EXAMPLES = {"quick": 20, "ci": 60, "nightly": 1000}
DEFAULT = "ci"
OF_SEVERAL = 1 / 2  # of these in each dtype of an implementation that is asked in several: the questions are other ones in each
OF_ALL = 1 / 6  # of these where none is named and all are asked: at each dtype the same questions, which share budgets

NOT_OURS = (
    HealthCheck.too_slow,  # a first call may import torch, start a process or compile
    HealthCheck.filter_too_much,  # arguments may be declined; a property that compared nothing is VACUOUS
    HealthCheck.function_scoped_fixture,  # no verdict may depend on what an implementation keeps from one example to the next
    HealthCheck.differing_executors,  # one test function runs on every implementation
)


PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)  # explaining took four fifths of the time of a failure


@cache
def register() -> None:
    """Make the three profiles known and load the default one, once: `--hypothesis-profile` then chooses another."""
    providers._get_local_constants = Constants  # noqa: SLF001
    warnings.filterwarnings("ignore", "Generating overly large repr")  # a verdict keeps the first of its letters
    for name, examples in EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            derandomize=False,  # said, since it would be inherited from Hypothesis's own `ci`
            database=DirectoryBasedExampleDatabase(".hypothesis/examples") if name == "nightly" else None,
            phases=PHASES,
            deadline=None,  # the first call of a process is always late
            report_multiple_bugs=False,  # one counterexample a property, the smallest
            print_blob=False,  # a verdict is replayed by its seed, not by a blob that only one version understands
            suppress_health_check=NOT_OURS,
        )
    settings.load_profile(DEFAULT)


@contextmanager
def in_force(name: str | None) -> Iterator[None]:
    """Meanwhile the profile of that name; without one, the one that is."""
    if name is None:
        yield
        return
    before = settings.get_current_profile_name()
    settings.load_profile(name)
    try:
        yield
    finally:
        settings.load_profile(before)


def examples_in_each(dtypes: int, *, named: bool = True) -> int:
    """How many examples a property draws in each of so many dtypes of an implementation, under the profile in force.

    One that is not `named` is asked as one of all that are built in: fewer, but for the profile that looks for what is new.
    """
    of_a_named_one = OF_SEVERAL if dtypes > 1 else 1.0
    share = of_a_named_one if named or is_random() else OF_ALL
    return math.ceil(hypothesis.settings().max_examples * share)


def is_random() -> bool:
    """Whether the profile in force draws other examples each time, and remembers what it found."""
    return hypothesis.settings().database is not None


@contextmanager
def the_same_examples() -> Iterator[None]:
    """Meanwhile a test without a seed draws alike in every run, unless the profile or `--hypothesis-seed` says otherwise."""
    before = core.global_force_seed
    if before is None and not is_random():
        core.global_force_seed = 0
    try:
        yield
    finally:
        core.global_force_seed = before
