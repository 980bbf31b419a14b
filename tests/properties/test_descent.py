"""The budget of some steps of training: what it lets pass, what it does not, and how it grows."""

from dataclasses import replace

import numpy as np
import pytest

from properties.error_budget.descent import Training, by_name
from properties.implementations.contract import envelope
from properties.test_training import FEW, RATES, training


def largest(case: Training, dtype: str) -> float:
    """The largest tolerance of a weight, as a part of the largest weight."""
    budgets = case.budgets(envelope(dtype)).values()
    return max(float(budget.tolerance(escalate=False).max()) for budget in budgets) / max(
        float(np.abs(budget.exact).max()) for budget in budgets
    )


@pytest.mark.parametrize("optimizer", RATES)
def test_in_float64_it_is_below_1e_12(optimizer):
    """Of the largest weight."""
    assert largest(training(optimizer), "float64") < 1e-12


def test_it_grows_with_the_steps():
    """Each step adds its own rounding to what the ones before have made of theirs: on average, if not in the largest of them."""
    case = training("SGD")

    def mean(steps: int) -> float:
        budgets = replace(case, batches=case.batches[:steps]).budgets(envelope("float32")).values()
        return float(np.concatenate([budget.tolerance(escalate=False).ravel() for budget in budgets]).mean())

    assert mean(3) > 1.1 * mean(2) > 1.1 * 1.1 * mean(1) > 0


@pytest.mark.parametrize("optimizer", RATES)
def test_a_gradient_of_the_step_before_is_over_it(optimizer):
    """Gradients that are late by a step, and gradients that add up, are told from rounding by far."""
    case = training(optimizer)
    budgets, seen = case.budgets(envelope("float32")), []

    def late(parameters, batch):
        seen.append(case.oracle(parameters, batch))
        return seen[max(0, len(seen) - 2)]

    def adding_up(parameters, batch):
        seen.append(case.oracle(parameters, batch))
        return {name: sum(each[name] for each in seen) for name in seen[0]}

    for wrong in (late, adding_up):
        seen.clear()
        weights = case.run(case.parameters, wrong, np.float64)  # as the oracle takes them
        worst = max(budget.score(weights[name], escalate=False).budget_used for name, budget in budgets.items())
        assert len(seen) == FEW
        assert worst > 100


def test_the_oracles_own_training_is_exact():
    """Run plainly, it gives what the budgets hold as exact."""
    case = training("Adam")

    weights = case.run(case.parameters, case.oracle, np.float64)

    assert weights.keys() == by_name(case.parameters).keys()
    for name, budget in case.budgets(envelope("float64")).items():
        assert np.abs(weights[name] - budget.exact).max() <= 2.0**-50 * np.abs(budget.exact).max(), name
