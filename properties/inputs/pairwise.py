"""Options combined so that every two of them meet in every pair of their values: a covering array, found greedily."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """A few choices of a value for each option, among which every pair of values of every two options occurs.

    Each new choice is, of all there are, one that covers most of the pairs still missing; the first of several. Raises
    ValueError for an option without values.
    """
    if empty := [name for name, values in options.items() if not values]:
        raise ValueError(f"options: expected at least one value for each, got none for {', '.join(empty)}")
    rows = list(product(*(range(len(values)) for values in options.values())))
    value_of = [(option, number) for option, values in enumerate(options.values()) for number in range(len(values))]
    has = np.array([[row[option] == number for option, number in value_of] for row in rows], dtype=bool)
    first, second = np.triu_indices(len(value_of))  # a value by itself is a pair too: of one option alone every value occurs
    covered = has[:, first] & has[:, second]
    missing = covered.any(axis=0)
    chosen = []
    while missing.any():
        best = int((covered & missing).sum(axis=1).argmax())
        missing &= ~covered[best]
        chosen.append(rows[best])
    return [{name: options[name][number] for name, number in zip(options, row, strict=True)} for row in chosen]
