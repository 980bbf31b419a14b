"""What is counted of results, by every rule: correct ones that a rule rejects, and how small a fault may be that it still sees."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from properties.error_budget.budgets import Score
from reports.records import Verdict

SEEDS, SEEN = 8, 7  # a fault is seen if it is rejected on so many of its eight witness inputs
PER_OCTAVE = 8  # bins of the histograms of ratios
ALARMS_SHOWN = 20
COARSEST, FINEST = 2.0, 26.0  # graded faults go from 2^-2 down to 2^-26

Ratios = Mapping[str, float]
"""By each rule, how large an error is as a multiple of what the rule allows."""


@dataclass
class Correct:
    """Correct results of one chunk of cases, as they are judged."""

    counts: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    alarms: list[dict[str, Any]] = field(default_factory=list)

    def add(self, variant: str, case: Sequence[Any], score: Score, ratios: Ratios) -> None:
        """One result of a variant on a case; `score` is ours."""
        self.counts["checks"] += 1
        self.counts["suspects"] += score.verdict is Verdict.SUSPECT
        self.variants[variant] += 1
        for rule, ratio in ratios.items():
            self.histograms[rule][bin_of(ratio)] += 1
            self.counts[f"alarms of {rule}"] += ratio > 1
        if score.budget_used > 1:
            self.alarms.append({"variant": variant, "case": list(case), "score": str(score)})

    def line(self) -> dict[str, Any]:
        """What is kept of it on disk."""
        histograms = {rule: sorted(bins.items()) for rule, bins in self.histograms.items()}
        return {"counts": dict(self.counts), "variants": dict(self.variants), "histograms": histograms, "alarms": self.alarms}


def bin_of(ratio: float) -> int:
    """The bin of a ratio on a logarithmic scale."""
    return round(PER_OCTAVE * math.log2(min(max(ratio, 2.0**-40), 2.0**40)))


def graded(wrong: Callable[[float], Iterable[Ratios]], correct: Iterable[Ratios]) -> dict[str, Any]:
    """The finest fault, as a power of two, that each rule rejects on seven of eight inputs; at its own setting.

    `wrong(size)` are the ratios of a fault of that size on each input, `correct` those of correct results there: a rule that
    rejects them would see a fault of any size. `margins` are, for each size, the ratio that seven of eight inputs reach: a rule
    made stricter or laxer by a factor sees the sizes whose margin is above that factor.
    """
    margins: dict[str, dict[str, float]] = defaultdict(dict)
    for exponent in np.arange(COARSEST, FINEST, 0.5):
        ratios = list(wrong(2.0**-exponent))
        for rule in ratios[0]:
            margins[rule][str(exponent)] = sorted(each[rule] for each in ratios)[SEEDS - SEEN]
    right = list(correct)
    largest = {rule: max(each[rule] for each in right) for rule in right[0]}
    smallest = {rule: smallest_visible(of) for rule, of in margins.items()}
    return {"smallest": smallest, "margins": dict(margins), "largest of correct": largest}


def smallest_visible(margins: dict[str, float], factor: float = 1.0) -> float:
    """The exponent e of the finest fault 2^-e up to which every coarser one exceeds `factor`; 0 if none does."""
    finest = 0.0
    for exponent, margin in sorted((float(exponent), margin) for exponent, margin in margins.items()):
        if not margin > factor:
            break
        finest = exponent
    return finest
