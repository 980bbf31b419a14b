"""One step of the oracle on the rounding simulator, from plain arrays to plain arrays."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from properties.error_budget.forward_bound import WorstCase
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Machine, Shadowed, Storing, shadowed
from properties.implementations.contract import Contract
from properties.implementations.formats import FINE_FLOAT64
from properties.implementations.oracle import oracle
from properties.implementations.shapes import shapes_unchecked
from properties.steps import BEYOND
from reference.positional_encoding import positional_encoding

BOUNDED = frozenset(
    {"embedding", "positional_encoding", "attention", "softmax", "layer_norm", "residual_norm", "feed_forward", "output_projection"}
    | BEYOND
)
"""The single steps whose proven bound is an additional ceiling; further on a bound grows past the signal."""

WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "attention_backward": ({"kept": "log_sums"},),
    "attention_gradient": ({"kept": "log_sums"},),
}
"""Further arguments with which the oracle computes the same in another way, whose rounding is as correct."""

AT_ONCE, LEAST = 256, 16  # trials of one contract that one machine makes, and of large matrices
CACHED = 2**17  # numbers in these trials of a matrix: more of them wait for memory


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
    (errors,) = simulate_all(step, args, kwargs, contracts, trials, seed, doubled=doubled).values()
    return errors.exact, [*errors.plain, *errors.doubled]


class Errors(NamedTuple):
    """What one result of a step is exactly, and the errors of the trials, (trials, *shape) for each way of computing it."""

    exact: np.ndarray
    plain: list[np.ndarray]
    doubled: list[np.ndarray]  # of trials in which every rounding errs twice as much


def simulate_all(
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    contracts: Sequence[Contract],
    trials: int,
    seed: int,
    *,
    doubled: bool = False,
) -> dict[str, Errors]:
    """The same for each result of a step by its name, and of all the ways that are as correct (`WAYS`)."""
    at_once = _at_once(args) // (2 if doubled else 1)
    found: dict[str, Errors] = {}
    for way, choices in enumerate(({}, *WAYS.get(step, ()))):
        parts: dict[str, list[list[np.ndarray]]] = {}
        for start in range(0, trials, at_once):
            machine = Trials(contracts, min(at_once, trials - start), seed + start + way * trials, doubled=doubled)
            results = results_on(machine, step, args, {**kwargs, **choices})
            blocks = {name: errors_of(result, machine) for name, result in results.items()}
            if contracts[0].flush_to_zero and contracts[0].storage.coarser != 1.0:
                flushing = Trials(contracts[:1], machine.count, seed + start, inside=FINE_FLOAT64)
                for name, flushed in results_on(flushing, step, args, {**kwargs, **choices}).items():
                    blocks[name].insert(len(contracts), flushed.strayed(machine.count))
            for name, result in results.items():
                parts.setdefault(name, []).append(blocks[name])
                found.setdefault(name, Errors(np.array(result.exact), [], []))
        for name, each in parts.items():
            joined = each[0] if len(each) == 1 else [np.concatenate(of_contract) for of_contract in zip(*each, strict=True)]
            plain = len(joined) - len(contracts) * doubled
            found[name].plain.extend(joined[:plain])
            found[name].doubled.extend(joined[plain:])
    return found


def _at_once(args: tuple[Any, ...]) -> int:
    """How many trials fit the cache: of the largest matrix that rows and columns of the arguments can make."""
    sizes = sorted(size for array in args if isinstance(array, np.ndarray) for size in array.shape[-2:])
    return min(AT_ONCE, max(LEAST, CACHED // max(math.prod(sizes[-2:]), 1)))


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
    (result,) = results_on(machine, step, args, kwargs).values()
    return result


def results_on(machine: Machine, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Shadowed]:
    """The same by the names of the results; a single one is just the result."""
    with np.errstate(all="ignore"), shapes_unchecked(), Storing(machine):
        if step == "positional_encoding":
            n, d_model = args
            result = positional_encoding(machine.given(np.arange(n, dtype=np.float64)), d_model)
        else:
            result = oracle(step, *shadowed(args, machine), **shadowed(kwargs, machine))
    results = result if isinstance(result, dict) else {"result": result}
    # a batch of none has no shadow: the oracle stacks nothing
    whole = {name: each if isinstance(each, Shadowed) else machine.given(each) for name, each in results.items()}
    return {name: machine.store("result", each) for name, each in whole.items()}
