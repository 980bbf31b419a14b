"""One step of the oracle on the rounding simulator, from plain arrays to plain arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jaxtyping
import numpy as np

from properties.error_budget.forward_bound import WorstCase
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Machine, Shadowed, Storing, shadowed
from properties.implementations.contract import Contract
from properties.implementations.formats import FINE_FLOAT64
from properties.implementations.oracle import oracle
from properties.steps import BEYOND
from reference.positional_encoding import positional_encoding

BOUNDED = frozenset(
    {"embedding", "positional_encoding", "attention", "softmax", "layer_norm", "residual_norm", "feed_forward", "output_projection"}
    | BEYOND
)
"""The single steps whose proven bound is an additional ceiling; further on a bound grows past the signal."""


AT_ONCE = 256  # trials of one contract that one machine makes: what they need of memory is large where a matrix is


def simulate(
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    contracts: Sequence[Contract],
    trials: int,
    seed: int,
    *,
    doubled: bool = False,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What `step` gives exactly, and the errors of the trials under each contract, (trials, *shape).

    A float64 that flushes has its trials twice: rounding is simulated on a coarser grid, and what is flushed is not. With `doubled`
    there follow, last and for each contract, those of as many trials in which every rounding errs twice as much.
    """
    at_once = AT_ONCE // 2 if doubled else AT_ONCE
    exact, parts = np.empty(0), []
    for start in range(0, trials, at_once):
        machine = Trials(contracts, min(at_once, trials - start), seed + start, doubled=doubled)
        result = run_on(machine, step, args, kwargs)
        exact, blocks = np.array(result.exact), errors_of(result, machine)
        if contracts[0].flush_to_zero and contracts[0].storage.coarser != 1.0:
            flushed = run_on(Trials(contracts[:1], machine.count, seed + start, inside=FINE_FLOAT64), step, args, kwargs)
            blocks.insert(len(contracts), flushed.strayed(machine.count))
        parts.append(blocks)
    return exact, parts[0] if len(parts) == 1 else [np.concatenate(of_contract) for of_contract in zip(*parts, strict=True)]


def errors_of(result: Shadowed, machine: Trials) -> list[np.ndarray]:
    """How far each trial strayed from the exact result, (trials, *shape) for each of the machine's contracts."""
    errors = result.strayed(machine.count * len(machine.contracts))
    storage = machine.contracts[0].storage
    if storage.coarser != 1.0:  # the oracle rounds in float64 too, as much again and independently
        errors = errors * (np.sqrt(2.0) / storage.coarser)
    return np.split(errors, len(machine.contracts))


def bound(step: str, args: tuple[Any, ...], kwargs: dict[str, Any], contracts: Sequence[Contract]) -> np.ndarray:
    """No correct implementation of one of these contracts errs by more, in any component."""
    bounds = [run_on(WorstCase(contract), step, args, kwargs).shadow[0] for contract in contracts]
    return np.maximum.reduce(bounds) * (2.0 if contracts[0].dtype == "float64" else 1.0)  # the oracle may err as much itself


def run_on(machine: Machine, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadowed:
    """The oracle's result with its shadow, every named matrix and the result itself stored as the machine stores them."""
    with np.errstate(all="ignore"), shapes_unchecked(), Storing(machine):
        if step == "positional_encoding":
            n, d_model = args
            result = positional_encoding(machine.given(np.arange(n, dtype=np.float64)), d_model)
        else:
            result = oracle(step, *shadowed(args, machine), **shadowed(kwargs, machine))
    if not isinstance(result, Shadowed):  # a batch of none: the oracle stacks nothing
        result = machine.given(result)
    return machine.store("result", result)


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """The suite has the oracle's shapes checked on every call; here, where the same calls come in thousands, it would cost half."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
