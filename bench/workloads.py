"""What is timed: every step at its sizes, by name, family and set."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench import (
    attention,
    decoder,
    embedding,
    encoder,
    feed_forward,
    generation,
    mask,
    multi_head,
    output_projection,
    positional_encoding,
    residual_norm,
    softmax,
    training,
    transformer,
)
from bench.step import Draw, Product, Sizes, Step
from properties.inputs.parameters import Call

ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
VARIANTS = 2  # of the inputs; timed calls go round them, so that an answer kept from the call before is seen

_ALONE = (
    *(embedding, positional_encoding, mask, softmax, multi_head, residual_norm),
    *(feed_forward, encoder, decoder, output_projection),
)
_WHOLE = (transformer, generation, training)
STEPS: dict[str, Step] = {module.STEP.name: module.STEP for module in (*_ALONE, attention, *_WHOLE)}


@dataclass(frozen=True)
class Workload:
    """One thing to time. Its name is `family.variant`."""

    name: str
    step: str
    sizes: Sizes

    @property
    def family(self) -> str:
        """The part of the name that workloads of one kind share."""
        return self.name.partition(".")[0]

    @property
    def definition(self) -> Step:
        """The step's formulas and draws."""
        return STEPS[self.step]

    @property
    def flops(self) -> float:
        """Of one call."""
        return float(self.definition.flops(self.sizes))

    def bytes(self, dtype: str) -> float:
        """The least traffic of one call."""
        return float(self.definition.elements(self.sizes)) * (1 if self.definition.boolean else ITEM[dtype])

    @property
    def tokens(self) -> int | None:
        """The tokens one call works on, where they are what counts."""
        return self.definition.tokens(self.sizes) if self.definition.tokens else None

    @property
    def products(self) -> list[Product]:
        """The shapes of its matrix products."""
        return self.definition.products(self.sizes)

    def calls(self, seed: int) -> list[Call]:
        """Arguments in float64. The variants differ in their inputs and share the very same arrays of weights."""
        shared = self.definition.weights(Draw(seed), self.sizes)
        return [Call(self.definition.inputs(Draw(seed + 1 + i), self.sizes), shared) for i in range(VARIANTS)]


WORKLOADS = {name: Workload(name, step.name, sizes) for step in STEPS.values() for name, sizes in step.workloads.items()}

SETS: dict[str, tuple[str, ...]] = {
    "steps": tuple(name for module in _ALONE for name in module.STEP.workloads),
    "short": (
        *("softmax.8x8x64", "multi_head.8x64", "residual_norm.8x64", "feed_forward.8x64", "encoder.8x64", "decoder.8x64"),
        *(f"attention.{n}" for n in attention.LENGTHS if n <= 2048),
        "transformer.article",
    ),
    "whole": tuple(name for module in _WHOLE for name in module.STEP.workloads),
    "full": tuple(WORKLOADS),
}


def named(name: str) -> Workload:
    """The workload of that name; `name@n=16+b=2` is the same at other sizes.

    Raises ValueError for one that is not known, a size it does not have, or one that is not positive.
    """
    base, _, changes = name.partition("@")
    if base not in WORKLOADS:
        raise ValueError(f"--workloads: no workload, family or set called {base!r}; did you mean {_close(base)}?")
    workload = WORKLOADS[base]
    sizes: dict[str, str] = {}
    for change in filter(None, changes.split("+")):
        size, _, value = change.partition("=")
        sizes[size] = value
        if size not in workload.sizes or not value.isdecimal() or int(value) < 1:
            raise ValueError(f"--workloads: {base} has sizes {', '.join(workload.sizes)}, each 1 or more; got {size}={value}")
    return replace(workload, name=name, sizes={**workload.sizes, **{size: int(value) for size, value in sizes.items()}})


def select(names: Iterable[str]) -> list[Workload]:
    """The workloads of these names, families or sets, in the suite's order. Raises ValueError for a name that is none of them."""
    chosen: dict[str, Workload] = {}
    families = {workload.family for workload in WORKLOADS.values()}
    for name in names:
        if name in families and name not in SETS:
            members = [workload.name for workload in WORKLOADS.values() if workload.family == name]
        else:
            members = SETS.get(name, (name,))
        chosen |= {member: named(member) for member in members}
    if not chosen:
        raise ValueError(f"--workloads: expected at least one of {', '.join([*SETS, *sorted(families)])}, or a name")
    order = list(WORKLOADS)
    return sorted(chosen.values(), key=lambda workload: order.index(workload.name.partition("@")[0]))


def _close(name: str) -> str:
    families = sorted({workload.family for workload in WORKLOADS.values()})
    return ", ".join(difflib.get_close_matches(name, [*SETS, *families, *WORKLOADS], n=3, cutoff=0.4) or SETS)
