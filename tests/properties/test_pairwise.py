"""A covering array: every two options meet in every pair of their values, in far fewer choices than there are."""

from itertools import combinations

import pytest

from properties import test_paths
from properties.inputs.pairwise import pairwise

OPTIONS = {"norm": ("post", "pre"), "activation": ("relu", "gelu", "gelu_tanh"), "scale": (True, False), "bias": (0, 1, 2, 3)}


def test_every_pair_of_values_occurs():
    """For every two options, the product of their values; here 12 choices of 48 are enough, and no fewer could be."""
    chosen = pairwise(OPTIONS)

    seen = {pair for choice in chosen for pair in combinations(choice.items(), 2)}
    names = list(OPTIONS)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert {((first, a), (second, b)) for a in OPTIONS[first] for b in OPTIONS[second]} <= seen
    assert 12 <= len(chosen) <= 14


def test_one_option_is_covered_by_its_values():
    """Where nothing meets anything, each value still occurs."""
    assert pairwise({"norm": ("post", "pre")}) == [{"norm": "post"}, {"norm": "pre"}]


def test_an_option_without_values_is_refused():
    """One line that names it."""
    with pytest.raises(ValueError, match="at least one value for each, got none for norm"):
        pairwise({"norm": (), "scale": (True,)})


def test_no_option_of_the_whole_model_is_dead():
    """Alive: every value of every option makes another call than the option's first value does, all else being equal."""
    first = {name: values[0] for name, values in test_paths.OPTIONS.items()}

    for name, values in test_paths.OPTIONS.items():
        made = {_call(first | {name: value}) for value in values}
        assert len(made) == len(values), f"{name} does not change what is asked"


def _call(choice: dict) -> str:
    """Everything that an implementation is handed, as text: what it is asked, and how the memory lies."""
    call = test_paths.combined(choice, seed=3)
    return repr((choice["layout"], call.args, call.kwargs))
