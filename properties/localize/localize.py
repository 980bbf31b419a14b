"""Where a whole model goes wrong: each matrix it wrote, judged by what the oracle makes of the model's own inputs to it.

The oracle runs beside the model, and wherever the model was recorded it goes on with the model's own matrix. So each matrix is
computed from the model's own upstream values, and what is left between the two is that step's **own** error; the difference
to an undisturbed run of the oracle is the **inherited** one. Both are judged by budgets that the rounding simulator derives on the
very same walk. Where little was recorded the steps in between share one verdict: the more intermediates, the closer the place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from properties.error_budget.budgets import TRIALS, Budget, Score, derived
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Machine, Shadowed, Storing, shadowed
from properties.error_budget.simulate import errors_of
from properties.implementations.contract import Contract, envelope
from properties.implementations.oracle_parameters import (
    Nested,
    decoder_layer_parameters,
    encoder_layer_parameters,
    norm_parameters,
    transformer_parameters,
)
from properties.localize.hooks import Intermediates
from reference.decoder import decoder
from reference.encoder import encoder
from reference.parameters import Architecture
from reference.transformer import transformer
from reports.records import Verdict

INPUTS = ("source.input", "target.input")
"""What the two stacks read: intermediates that take the place of token ids where a model has none."""


@dataclass(frozen=True)
class Case:
    """One sequence through one model: what the oracle needs to run beside it.

    `parameters` are nested dicts of float64 arrays as in `properties.steps`. With `source` and `target` (token ids) the whole
    Transformer runs; without, the stacks run from what the intermediates say they read. True in a mask: not padding.
    """

    parameters: Nested
    architecture: Architecture
    source: np.ndarray | None = None
    target: np.ndarray | None = None
    source_mask: np.ndarray | None = None
    target_mask: np.ndarray | None = None

    def run(self, intermediates: Intermediates, machine: Machine) -> None:
        """Run the oracle on arrays of the machine; what it computes is seen by the active trace."""
        parameters = shadowed(self.parameters, machine)
        if self.source is not None and self.target is not None:
            whole = transformer_parameters(parameters)
            transformer(self.source, self.target, whole, self.architecture, self.source_mask, self.target_mask)
            return
        M = machine.given(intermediates["source.input"])
        mask = None if self.source_mask is None else np.repeat(self.source_mask[None], len(M), axis=0)
        layers = [encoder_layer_parameters(layer) for layer in parameters["encoder"]]
        M = encoder(M, layers, self.architecture, mask, norm_parameters(parameters.get("encoder_norm")))
        if "target.input" in intermediates:
            X = machine.given(intermediates["target.input"])
            memory_mask = None if self.source_mask is None else np.repeat(self.source_mask[None], len(X), axis=0)
            own_mask = None if self.target_mask is None else np.repeat(self.target_mask[None], len(X), axis=0)
            layers = [decoder_layer_parameters(layer) for layer in parameters["decoder"]]
            decoder(X, M, layers, self.architecture, own_mask, memory_mask, norm_parameters(parameters.get("decoder_norm")))


class Walk(Storing):
    """A trace that goes on with the model's own matrix wherever there is one, and keeps what the oracle made in its place."""

    def __init__(self, machine: Machine, intermediates: Intermediates, *, substitute: bool) -> None:
        super().__init__(machine)
        self.intermediates, self.substitute = intermediates, substitute
        self.order: list[str] = []  # every matrix of the oracle, recorded or not

    def keep(self, name: str, matrix: np.ndarray) -> np.ndarray:
        """Raises ValueError for an intermediate of another shape than the oracle's matrix of that name."""
        self.order.append(name)
        if name not in self.intermediates:
            assert isinstance(matrix, Shadowed)
            return self.machine.store(name.rpartition(".")[2], matrix)
        assert isinstance(matrix, Shadowed)
        if self.intermediates[name].shape != matrix.shape:
            raise ValueError(f"intermediate {name}: expected shape {matrix.shape}, got {self.intermediates[name].shape}")
        self[name] = self.machine.store("result", matrix)
        return (
            self.machine.given(self.intermediates[name]) if self.substitute else self.machine.store(name.rpartition(".")[2], matrix)
        )


@dataclass(frozen=True)
class Place:
    """One matrix that was recorded: its own error and the one it was handed, each as a share of its budget (above 1: over it)."""

    name: str
    own: Score
    total: Score | None  # not known of a gradient
    since: tuple[str, ...]  # what the oracle computed since the last matrix recorded on this way: steps that share this verdict

    @property
    def is_over(self) -> bool:
        """Whether the step itself leaves its budget."""
        return self.own.verdict is Verdict.FAIL

    def __str__(self) -> str:
        where = f", row {self.own.index[0]}, feature {self.own.index[-1]}" if self.own.index else ""
        seen = "" if self.own.kind == "component" else f" (by {self.own.kind})"
        numbers = f"expected {self.own.expected:.9g}, got {self.own.got:.9g}"
        return f"{self.name}{where}: {numbers}; own error {self.own.budget_used:.3g}× budget{seen}"


@dataclass(frozen=True)
class Finding:
    """The matrices recorded, in the order the oracle computes them, and the first one whose own error is over its budget."""

    places: tuple[Place, ...]
    dtype: str
    explanation: str = ""  # which weights the numbers are consistent with, where that can be told
    judged: str = "matrices recorded"

    @cached_property
    def culprit(self) -> Place | None:
        """Where it first goes wrong; None where no step is over its budget."""
        return next((place for place in self.places if place.is_over), None)

    def __bool__(self) -> bool:
        return self.culprit is None

    def __str__(self) -> str:
        if self.culprit is None:
            worst = max((place.own.budget_used for place in self.places), default=0.0)
            return f"no step over budget: {len(self.places)} {self.judged}, the worst used {worst:.2g} of its own in {self.dtype}"
        upstream = "upstream clean" if self.culprit is self.places[0] else "all before it within budget"
        lines = [f"first divergence: {self.culprit}; {upstream}"]
        if self.culprit.since:
            lines.append(f"not recorded apart from it: {', '.join(self.culprit.since)}")
        return "\n".join([*lines, *([self.explanation] if self.explanation else [])])


def localize(
    case: Case,
    intermediates: Intermediates,
    *,
    dtype: str = "float32",
    contract: Contract | Sequence[Contract] | None = None,
    escalate: bool = True,
) -> Finding:
    """Judge every intermediate by its own error and by its whole one; suspects on fresh trials again, unless `escalate` is False.

    `intermediates` are named as the oracle's trace names its matrices, one sequence, float64 numbers of `dtype`. Raises ValueError
    for
    intermediates that are not finite, that have another shape than the oracle's, or of which the oracle knows none.
    """
    contracts = envelope(dtype) if contract is None else (contract,) if isinstance(contract, Contract) else tuple(contract)
    _must_be_usable(case, intermediates)
    own = _walked(case, intermediates, contracts, substitute=True)
    total = _walked(case, intermediates, contracts, substitute=False)
    unknown = [name for name in intermediates if name not in own.order and name not in INPUTS]
    if not own.budgets:
        raise ValueError(
            f"intermediates: expected names like {own.order[0]}, {own.order[-1]}; got {', '.join(unknown[:3]) or 'none'}"
        )
    if unknown:
        raise ValueError(
            f"intermediates: the oracle has no matrix {', '.join(unknown[:3])}; it has e.g. {', '.join(own.order[:3])}"
        )
    places = [
        Place(
            name,
            budget.score(intermediates[name], escalate=escalate),
            total.budgets[name].score(intermediates[name], escalate=False),
            _since(own.order, intermediates, name),
        )
        for name, budget in own.budgets.items()
    ]
    return Finding(tuple(places), dtype)


@dataclass
class _Walked:
    order: list[str]
    budgets: dict[str, Budget]


def _walked(case: Case, intermediates: Intermediates, contracts: Sequence[Contract], *, substitute: bool) -> _Walked:
    """One walk, and the budget of every matrix on it; longer walks are taken when a suspect asks for them, each at most once.

    A walk keeps every matrix, so on a long one half of the trials that are asked for are made, and as many doubled ones.
    """

    def walk(case: Case, trials: int, seed: int, *, doubled: bool = False) -> Walk:
        machine = Trials(contracts, trials, seed, doubled=doubled)
        walk = Walk(machine, intermediates, substitute=substitute)
        with np.errstate(all="ignore"), walk:
            case.run(intermediates, machine)
        return walk

    long_walks: dict[int, Walk] = {}

    def again(name: str, trials: int) -> Budget:
        if trials not in long_walks:
            long_walks[trials] = walk(case, trials // 2, seed=trials, doubled=True)
        return budget(long_walks[trials], name)

    def budget(walked: Walk, name: str) -> Budget:
        matrix = walked[name]
        assert isinstance(matrix, Shadowed)
        assert isinstance(walked.machine, Trials)
        exact, blocks = np.array(matrix.exact), errors_of(matrix, walked.machine)
        probes = {what: _exact(wrong[name]) for what, wrong in wrongs.items() if not np.array_equal(_exact(wrong[name]), exact)}
        plain, doubled = blocks[: len(contracts)], blocks[len(contracts) :]
        return derived(name, contracts, exact, plain, lambda trials: again(name, trials), probes=probes, doubled=doubled)

    short = walk(case, TRIALS, seed=0)
    wrongs = {"temperature": walk(replace(case, parameters=_sharper(case.parameters)), 1, seed=0)} if substitute else {}
    return _Walked(short.order, {name: budget(short, name) for name in short})


def _exact(matrix: np.ndarray) -> np.ndarray:
    assert isinstance(matrix, Shadowed)
    return np.array(matrix.exact)


def _sharper(parameters: Any) -> Any:
    """The same weights with every query longer by 1/64, as scores over a smaller √d_k: what an attention is probed along."""
    if isinstance(parameters, Mapping):
        longer = {name: parameters[name] * (1 + 1 / 64) for name in ("W_Q", "b_Q") if parameters.get(name) is not None}
        return {name: longer.get(name, _sharper(value)) for name, value in parameters.items()}
    return [_sharper(layer) for layer in parameters] if isinstance(parameters, list | tuple) else parameters


def _must_be_usable(case: Case, intermediates: Intermediates) -> None:
    if case.source is None and "source.input" not in intermediates:
        raise ValueError("intermediates: expected source.input (what the first layer reads) or a case with token ids, got neither")
    for name, matrix in intermediates.items():
        if np.isnan(matrix).any() and (name in INPUTS or name == next(iter(intermediates))):
            raise ValueError(
                f"intermediate {name}: expected finite numbers to begin with, got NaN: the inputs themselves are not usable"
            )


def _since(order: list[str], intermediates: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The steps between the intermediate before `name` and itself that nobody recorded, inside the same layer."""
    before = order[: order.index(name)]
    last = max((i for i, other in enumerate(before) if other in intermediates), default=-1)
    unheard = [
        other.split(".head.")[0] + (".head.*." + other.rpartition(".")[2] if ".head." in other else "")
        for other in before[last + 1 :]
    ]
    return tuple(dict.fromkeys(unheard))


def explained(
    finding: Finding,
    case: Case,
    intermediates: Intermediates,
    hypotheses: Callable[[str, Nested], Mapping[str, Nested]],
    **kwargs: Any,
) -> Finding:
    """The finding with the first hypothesis about the weights under which its culprit is within budget, if there is one."""
    if finding.culprit is None:
        return finding
    for what, parameters in hypotheses(finding.culprit.name, case.parameters).items():
        other = localize(replace(case, parameters=parameters), intermediates, dtype=finding.dtype, escalate=False, **kwargs)
        place = next(place for place in other.places if place.name == finding.culprit.name)
        if not place.is_over:
            return replace(finding, explanation=f"the numbers are consistent with {what}")
    return finding
