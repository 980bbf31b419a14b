"""Where a whole model's backward goes wrong: each gradient, judged by what the oracle makes of the model's own gradients before it.

A model is run once and its loss Σ direction ∘ output differentiated. Of every matrix that is recorded there is then its value and
the gradient that it got. The steps are gone through from the end to the beginning: each is given the model's own values and the
model's own gradient of its result, and what it makes of them (the gradients of its inputs and of its weights) is compared with what
the model made. So a wrong gradient is named where it first is wrong, and not in every layer that comes after.

A gradient that comes from two uses, as that of the input of a sublayer with a residual connection, is the sum of both. Steps of
which a value or a gradient was not recorded are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from properties.error_budget.budgets import TRIALS, Budget, derived
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Storing, shadowed
from properties.error_budget.simulate import errors_of
from properties.implementations.contract import Contract, envelope
from properties.implementations.oracle import Nested
from properties.implementations.shapes import shapes_unchecked
from properties.implementations.weights import nested
from properties.localize.hooks import Intermediates
from properties.localize.localize import Finding, Place
from reference.backward.feed_forward import SLOPES
from reference.backward.multi_head import linear_backward, multi_head_backward
from reference.backward.residual_norm import layer_norm_backward
from reference.mask import causal_mask
from reference.parameters import Architecture, MultiHeadParameters, NormParameters

Named = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One run of a model and its backward: values and gradients of matrices by the oracle's names, and gradients of weights.

    `of_weights` are nested as the parameters are; None where they are not known.
    """

    values: Intermediates
    gradients: Intermediates
    of_weights: Nested | None = None

    def gradient(self, name: str) -> np.ndarray | None:
        """Of a matrix, or of a weight by its path: encoder.0.feed_forward.W_1."""
        if name in self.gradients or self.of_weights is None:
            return self.gradients.get(name)
        found: Any = self.of_weights
        for key in name.split("."):
            if isinstance(found, list | tuple) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, np.ndarray) else None


@dataclass(frozen=True)
class Step:
    """One step backward: the values and gradients it needs by name, its weights, and the gradients that it gives, by name."""

    values: tuple[str, ...]
    gradients: tuple[str, ...]
    weights: Nested
    run: Callable[[Named, Named, Nested], Named]


def localize_backward(
    recorded: Recorded,
    parameters: Nested,
    architecture: Architecture,
    *,
    dtype: str = "float32",
    contract: Contract | Sequence[Contract] | None = None,
) -> Finding:
    """Judge every gradient by its own error, in the order in which a backward comes to them.

    `parameters` are nested dicts of float64 arrays. Raises ValueError where no step has all it needs recorded.
    """
    contracts = envelope(dtype) if contract is None else (contract,) if isinstance(contract, Contract) else tuple(contract)
    places = []
    for step in steps(parameters, architecture):
        known = all(name in recorded.values for name in step.values) and all(name in recorded.gradients for name in step.gradients)
        for name, budget in _budgets(step, recorded, contracts).items() if known else ():
            got = recorded.gradient(name)
            if got is not None:
                places.append(Place(f"gradient of {name}", budget.score(got), None, ()))
    if not places:
        raise ValueError(f"gradients: expected those of matrices like {next(iter(recorded.values), 'none')}, got none to judge")
    return Finding(tuple(places), dtype, judged="gradients judged")


def _budgets(step: Step, recorded: Recorded, contracts: Sequence[Contract]) -> dict[str, Budget]:
    """Of each gradient that a step gives, from the model's own values and gradients."""

    @cache
    def walked(trials: int, doubled: bool) -> tuple[Trials, Named]:
        machine = Trials(contracts, trials, trials, doubled=doubled)

        def given(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> Named:
            return {name: machine.given(arrays[name]) for name in names}

        with np.errstate(all="ignore"), shapes_unchecked(), Storing(machine):
            values, gradients = given(recorded.values, step.values), given(recorded.gradients, step.gradients)
            found = step.run(values, gradients, shadowed(step.weights, machine))
            return machine, {name: machine.store("result", each) for name, each in found.items()}

    def budget(name: str, trials: int, *, doubled: bool = False) -> Budget:
        machine, found = walked(trials, doubled)
        errors, again = errors_of(found[name], machine), partial(more, name)
        plain, twice = errors[: len(contracts)], errors[len(contracts) :]
        return derived(name, contracts, np.array(found[name].exact), plain, again, doubled=twice)

    def more(name: str, trials: int) -> Budget:  # half of them are doubled
        return budget(name, trials // 2, doubled=True)

    return {name: budget(name, TRIALS) for name in walked(TRIALS, False)[1]}


# The steps of a model, from its end to its beginning -------------------------------------------------------------------


def steps(parameters: Nested, architecture: Architecture) -> Iterator[Step]:
    """Of the decoder, of the memory that all its layers read, and of the encoder."""
    written = "encoder.final_norm" if parameters.get("encoder_norm") else _last(parameters, "encoder", architecture)
    yield from _stack("decoder", parameters, architecture, written)
    yield _memory(parameters, architecture, written)
    yield from _stack("encoder", parameters, architecture, None)


def _last(parameters: Nested, stack: str, architecture: Architecture) -> str:
    """What the last layer of a stack writes."""
    i, count = len(parameters[stack]) - 1, 3 if stack == "decoder" else 2
    return f"{stack}.{i}.add_norm_{count}.{'residual' if architecture.norm == 'pre' else 'norm'}"


def _stack(stack: str, parameters: Nested, architecture: Architecture, memory: str | None) -> Iterator[Step]:
    final = parameters.get(f"{stack}_norm")
    if final:
        yield _norm(f"{stack}.final_norm", _last(parameters, stack, architecture), f"{stack}_norm", final, architecture)
    for i in reversed(range(len(parameters[stack]))):
        yield from _layer(stack, i, parameters[stack][i], architecture, memory)


def _layer(stack: str, i: int, layer: Nested, architecture: Architecture, memory: str | None) -> Iterator[Step]:
    """The sublayers in reverse order, each with its norm and its residual connection."""
    here, pre = f"{stack}.{i}", architecture.norm == "pre"
    parts = ["self_attention", "feed_forward"] if memory is None else ["self_attention", "cross_attention", "feed_forward"]
    before = f"{'source' if stack == 'encoder' else 'target'}.input"
    if i:
        before = f"{stack}.{i - 1}.add_norm_{len(parts)}.{'residual' if pre else 'norm'}"
    for k in reversed(range(1, len(parts) + 1)):
        at, part, norm = f"{here}.add_norm_{k}", parts[k - 1], layer[f"norm_{k}"]
        given = before if k == 1 else f"{here}.add_norm_{k - 1}.{'residual' if pre else 'norm'}"
        if pre:  # Y = X + F(norm(X))
            yield from _sublayer(here, part, f"{at}.norm", None, layer[part], architecture, memory)
            yield _norm(f"{at}.norm", given, f"{here}.norm_{k}", norm, architecture, beside=f"{at}.residual")
        else:  # Y = norm(X + F(X))
            yield _norm(f"{at}.norm", f"{at}.residual", f"{here}.norm_{k}", norm, architecture)
            yield from _sublayer(here, part, given, f"{at}.residual", layer[part], architecture, memory)


def _norm(result: str, given: str, weights: str, norm: Nested, architecture: Architecture, *, beside: str | None = None) -> Step:
    """LayerNorm of `given`, which is also used `beside` it where there is a residual connection."""

    def run(values: Named, gradients: Named, own: Nested) -> Named:
        dX, found = layer_norm_backward(gradients[result], values[given], NormParameters(**own), architecture.eps)
        whole = dX if beside is None else dX + gradients[beside]
        return {f"{weights}.gain": found.gain, f"{weights}.bias": found.bias, given: whole}

    return Step((given,), (result,) if beside is None else (result, beside), norm, run)


def _sublayer(
    here: str, part: str, given: str, beside: str | None, weights: Nested, architecture: Architecture, memory: str | None
) -> Iterator[Step]:
    at = f"{here}.{part}"
    if part == "feed_forward":
        yield _linear(f"{at}.output", f"{at}.hidden", at, "2", weights)
        yield _activation(f"{at}.hidden", f"{at}.preactivation", architecture)
        yield _linear(f"{at}.preactivation", given, at, "1", weights, beside)
    else:
        yield _attention(at, given, beside, weights, architecture, memory)


def _linear(result: str, given: str, at: str, number: str, weights: Nested, beside: str | None = None) -> Step:
    W, b = f"W_{number}", f"b_{number}"

    def run(values: Named, gradients: Named, own: Nested) -> Named:
        dX, dW, db = linear_backward(gradients[result], values[given], own[W], own[b])
        return {f"{at}.{W}": dW, f"{at}.{b}": db, given: dX if beside is None else dX + gradients[beside]}

    return Step((given,), (result,) if beside is None else (result, beside), {W: weights[W], b: weights[b]}, run)


def _activation(result: str, given: str, architecture: Architecture) -> Step:
    def run(values: Named, gradients: Named, _: Nested) -> Named:
        return {given: gradients[result] * SLOPES[architecture.activation](values[given])}

    return Step((given,), (result,), {}, run)


def _attention(at: str, given: str, beside: str | None, weights: Nested, architecture: Architecture, memory: str | None) -> Step:
    """All of multi-head attention at once: a module of torch's shows nothing of its inside."""
    cross, result = at.endswith("cross_attention"), f"{at}.output"

    def run(values: Named, gradients: Named, own: Nested) -> Named:
        X = values[given]
        past = causal_mask(len(X)) if at.startswith("decoder") and not cross else None
        M = values[memory] if cross and memory else X
        dX, dM, found = multi_head_backward(gradients[result], X, M, MultiHeadParameters(**own), architecture.h, past)
        dX = dX if cross else dX + dM
        of_weights = {f"{at}.{name}": each for name, each in reversed(nested(found).items()) if each is not None}
        return {**of_weights, given: dX if beside is None else dX + gradients[beside]}

    needed = (given, memory) if cross and memory else (given,)
    return Step(needed, (result,) if beside is None else (result, beside), weights, run)


def _memory(parameters: Nested, architecture: Architecture, written: str) -> Step:
    """What the encoder wrote, which every layer of the decoder reads: their gradients add up."""
    layers = parameters["decoder"]
    k = 2 if architecture.norm == "pre" else 1
    inputs = [f"decoder.{i}.add_norm_{k}.norm" for i in range(len(layers))]
    results = [f"decoder.{i}.cross_attention.output" for i in range(len(layers))]
    weights = {str(i): layer["cross_attention"] for i, layer in enumerate(layers)}

    def run(values: Named, gradients: Named, own: Nested) -> Named:
        parts = []
        for i, (X, result) in enumerate(zip(inputs, results, strict=True)):
            heads = MultiHeadParameters(**own[str(i)])
            parts.append(multi_head_backward(gradients[result], values[X], values[written], heads, architecture.h)[1])
        return {written: sum(parts[1:], parts[0])}

    return Step((*inputs, written), tuple(results), weights, run)
