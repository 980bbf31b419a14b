"""Options combined so that every two of them meet in every pair of their values: a covering array, found greedily."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """A few choices of a value for each option, among which every pair of values of every two options occurs.

    Each new choice is, of all there are, one that covers most of the pairs still missing; the first of several. Raises
    ValueError for an option without values.
    """
    if empty := [name for name, values in options.items() if not values]:
        raise ValueError(f"options: expected at least one value for each, got none for {', '.join(empty)}")
    names = list(options)
    every = [dict(zip(names, numbers, strict=True)) for numbers in product(*(range(len(options[name])) for name in names))]
    covered = [pairs(choice) for choice in every]
    missing = set().union(*covered)
    chosen = []
    while missing:
        best = max(range(len(every)), key=lambda i: len(covered[i] & missing))
        missing -= covered[best]
        chosen.append(every[best])
    return [{name: options[name][number] for name, number in choice.items()} for choice in chosen]


def pairs(choice: Mapping[str, Any]) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """The pairs of values that occur in one choice; a value by itself is one too."""
    return set(combinations_with_replacement(choice.items(), 2))
