"""A few steps of training: the weights that they end at, and how far a correct implementation's may be from them.

    SGD    W ← W − η·G
    Adam   m ← β₁m + (1 − β₁)G,  s ← β₂s + (1 − β₂)G²,  W ← W − η·m̂ / (√ŝ + ε),  m̂ = m/(1 − β₁ᵗ),  ŝ = s/(1 − β₂ᵗ)

(Kingma & Ba 2015, algorithm 1.) The loss of a batch is Σ direction ∘ logits. Each step starts from what the one before made of its
rounding errors, so the budget is that of the whole: the oracle's own steps, forward, backward and optimizer, on the rounding
simulator, from the same weights. How errors grow from step to step is not assumed but computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from properties.error_budget.budgets import TRIALS, Budget, derived, digest, memory
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Storing, shadowed
from properties.error_budget.simulate import errors_of
from properties.implementations.contract import Contract
from properties.implementations.oracle import transformer_parameters
from properties.implementations.shapes import shapes_unchecked
from properties.implementations.weights import nested
from reference.backward.transformer import transformer_backward
from reference.parameters import Architecture

Nested = dict[str, Any]
Optimizer = Literal["SGD", "Adam"]
Named = dict[str, Any]
MEAN, SQUARES = 0.9, 0.98  # the paper's β₁ and β₂ (section 5.3)
EPSILON = 2.0**-6  # larger than is usual: a gradient of nothing but rounding is then not made a whole step of


@dataclass(frozen=True)
class Batch:
    """Token ids (b, m) and (b, n), and the gradient of the loss by the logits (b, n, vocab)."""

    source: np.ndarray
    target: np.ndarray
    direction: np.ndarray


@dataclass(frozen=True)
class Training:
    """Where training starts, what it sees, and how it moves."""

    parameters: Nested
    choices: dict[str, Any]  # those of a whole model: h, norm, activation, …
    batches: tuple[Batch, ...]  # one a step
    optimizer: Optimizer
    rate: float

    def run(self, parameters: Nested, gradients: Callable[[Nested, Batch], Nested], stored: Callable[[Any], Any]) -> Named:
        """The weights after the last step by name, given the gradients at some weights and how an array is stored between steps."""
        names = by_name(parameters)
        means, squares = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for step, batch in enumerate(self.batches, start=1):
            found = by_name(gradients(parameters, batch))
            moves = {}
            for name in names:
                moves[name] = found[name]
                if self.optimizer == "Adam":
                    means[name] = found[name] * (1 - MEAN) + means[name] * MEAN
                    squares[name] = found[name] * found[name] * (1 - SQUARES) + squares[name] * SQUARES
                    root = np.sqrt(squares[name] / (1 - SQUARES**step))
                    moves[name] = (means[name] / (1 - MEAN**step)) / (root + EPSILON)
            parameters = _moved(parameters, {name: move * self.rate for name, move in moves.items()}, stored)
        return by_name(parameters)

    def oracle(self, parameters: Nested, batch: Batch) -> Named:
        """The oracle's gradients by name: those of each sequence, added up."""
        whole, architecture = transformer_parameters(parameters), Architecture(**self.choices)
        total: Named = {}
        for i, (source, target) in enumerate(zip(batch.source, batch.target, strict=True)):
            found = by_name(nested(transformer_backward(batch.direction[i], source, target, whole, architecture)))
            total = {name: total[name] + each if total else each for name, each in found.items()}
        return total

    def budgets(self, contracts: Sequence[Contract]) -> dict[str, Budget]:
        """Of every parameter after the last step, by name: how far an implementation under one of the contracts may be off."""
        batches = [vars(batch) for batch in self.batches]
        key = digest(self.parameters, self.choices, batches, self.optimizer, self.rate, tuple(contracts))
        walk = cache(partial(self._walked, contracts, int.from_bytes(key, "big")))

        def budget(name: str, trials: int, *, doubled: bool = False) -> Budget:
            machine, weights = walk(trials, doubled)
            errors = errors_of(weights[name], machine)
            plain, twice = errors[: len(contracts)], errors[len(contracts) :]
            again = partial(more, name)
            return derived("training", contracts, np.array(weights[name].exact), plain, again, doubled=twice)

        def more(name: str, trials: int) -> Budget:  # half of them are doubled: a walk keeps a whole model for each
            return budget(name, trials // 2, doubled=True)

        names = by_name(self.parameters)
        return {name: memory.recall(key + name.encode(), partial(budget, name, TRIALS)) for name in names}

    def _walked(self, contracts: Sequence[Contract], seed: int, trials: int, doubled: bool) -> tuple[Trials, Named]:
        """The oracle's training on the rounding simulator."""
        machine = Trials(contracts, trials, seed + trials, doubled=doubled)

        def gradients(parameters: Nested, batch: Batch) -> Named:
            return self.oracle(parameters, replace(batch, direction=machine.given(batch.direction)))

        with np.errstate(all="ignore"), shapes_unchecked(), Storing(machine):
            return machine, self.run(shadowed(self.parameters, machine), gradients, lambda W: machine.store("result", W))


def by_name(parameters: Any, path: str = "") -> Named:
    """Every array of nested dicts and lists under its dotted name; what is None is left out."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict | list | tuple):
        return {path: parameters}
    items = parameters.items() if isinstance(parameters, dict) else enumerate(parameters)
    return {name: array for key, item in items for name, array in by_name(item, f"{path}.{key}" if path else str(key)).items()}


def _moved(parameters: Any, moves: Named, stored: Callable[[Any], Any], path: str = "") -> Any:
    """The same nested, every array minus its move."""
    if isinstance(parameters, dict):
        return {key: _moved(item, moves, stored, f"{path}.{key}" if path else str(key)) for key, item in parameters.items()}
    if isinstance(parameters, list | tuple):
        return [_moved(item, moves, stored, f"{path}.{i}") for i, item in enumerate(parameters)]
    return None if parameters is None else stored(parameters - moves[path])
