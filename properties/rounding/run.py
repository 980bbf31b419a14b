"""One step of the oracle on the rounding machine, from plain arrays to plain arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jaxtyping
import numpy as np

from properties.contracts import Contract
from properties.oracle import oracle
from properties.rounding.formats import FINE_FLOAT64
from properties.rounding.shadow import Machine, Shadowed, Storing, shadowed
from properties.rounding.trials import Trials
from properties.rounding.worst_case import WorstCase
from reference.positional_encoding import positional_encoding

BOUNDED = frozenset(
    {"embedding", "positional_encoding", "attention", "softmax", "layer_norm", "residual_norm", "feed_forward", "output_projection"}
)
"""The single steps whose proven bound is an additional ceiling; further on a bound grows past the signal."""


def simulate(
    step: str, args: tuple[Any, ...], kwargs: dict[str, Any], contracts: Sequence[Contract], trials: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What `step` gives exactly, and the errors of the trials under each contract, (trials, *shape).

    A float64 that flushes has its trials twice: rounding is simulated on a coarser grid, and what is flushed is not.
    """
    result = run_on(Trials(contracts, trials, seed), step, args, kwargs)
    blocks = errors_of(result, contracts, trials)
    if contracts[0].flush_to_zero and contracts[0].storage.coarser != 1.0:
        flushed = run_on(Trials(contracts[:1], trials, seed, inside=FINE_FLOAT64), step, args, kwargs)
        blocks.append(flushed.strayed(trials))
    return np.array(result.exact), blocks


def errors_of(result: Shadowed, contracts: Sequence[Contract], trials: int) -> list[np.ndarray]:
    """How far each of the `trials` trials under each contract strayed from the exact result, (trials, *shape) a contract."""
    errors = result.strayed(trials * len(contracts))
    storage = contracts[0].storage
    if storage.coarser != 1.0:  # the oracle rounds in float64 too, as much again and independently
        errors = errors * (np.sqrt(2.0) / storage.coarser)
    return [errors[i * trials : (i + 1) * trials] for i in range(len(contracts))]


def bound(step: str, args: tuple[Any, ...], kwargs: dict[str, Any], contracts: Sequence[Contract]) -> np.ndarray:
    """No honest implementation of one of these contracts errs by more, in any component."""
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
