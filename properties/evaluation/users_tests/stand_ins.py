"""What is put in the place of a user's kernel: faults, cheats, answers that are no answers, and correct implementations.

Each is a source text that needs torch alone, and what it offers; the process in which the user's tests run executes it.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

from properties.evaluation.detection.catalogue import CATALOGUE, FAULTS, component
from properties.evaluation.detection.fault import Fault
from properties.steps import OPTIONS, STEPS, parameters

NESTED = ("layer", "layers", "parameters", "program", "of")  # arguments that no kernel of a single step takes
CRUDE = {
    "all-zeros": "zeros everywhere",
    "all-ones": "ones everywhere",
    "all-nan": "NaN everywhere",
    "noise": "random numbers, whatever is asked",
}
"""Answers of the right shape and dtype that have nothing to do with the question."""


@dataclass(frozen=True)
class StandIn:
    """One implementation to run the tests with.

    kind     "fault", "cheat", "crude" or "correct"
    base     the correct implementation that it was made of, by name: what differs from it is the fault
    offers   the options of attention that it takes
    source   its text; "" for a crude one, which is made of the answer of `right`, the text of its base
    """

    id: str
    kind: str
    step: str
    base: str
    offers: tuple[str, ...]
    source: str
    right: str
    says: str = ""

    def as_plain(self) -> dict[str, Any]:
        """For a process that has none of our packages."""
        return asdict(self)


def scored_steps() -> list[str]:
    """The steps that tests can be scored for: with faults of their own, and arrays for arguments."""
    first = {fault.steps[0].partition(".")[0] for fault in FAULTS}
    return [
        name
        for name, step in STEPS.items()
        if name in first and step.kind in ("float", "bool") and not set(parameters(name)) & set(NESTED)
    ]


def step_of(fault: Fault) -> str:
    """The step that a fault happens in first."""
    return fault.steps[0].partition(".")[0]


def option_of(fault: Fault) -> str:
    """The option of attention that a fault is about; "" for none."""
    return fault.steps[0].partition(".")[2]


def base_of(fault: Fault) -> str:
    """The name of the correct implementation that a fault was made of."""
    return "+".join((fault.base, *fault.instead.values()))


def faults_of(step: str) -> list[Fault]:
    """The faults and cheats that happen in a step first, but for those that no input can show."""
    return [fault for fault in CATALOGUE if step_of(fault) == step and not fault.equivalent]


def of_fault(fault: Fault) -> StandIn:
    """A fault or cheat, ready to run."""
    kind = "cheat" if component(fault.fault_class) == "cheat" else "fault"
    right = fault.source(wrong=False)
    return StandIn(fault.id, kind, step_of(fault), base_of(fault), _offers(fault), fault.source(), right, fault.shows)


def correct(step: str) -> list[StandIn]:
    """Every correct implementation that a fault of the step was made of, the plainest first."""
    first = {base_of(fault): fault for fault in reversed(faults_of(step))}
    made = [
        StandIn(base, "correct", step, base, _offers(fault), fault.source(wrong=False), fault.source(wrong=False))
        for base, fault in first.items()
    ]
    return sorted(made, key=lambda each: (each.base != STEPS[step].row, each.base))


def crude(step: str) -> list[StandIn]:
    """Answers that have nothing to do with the question; of truth values no NaN."""
    most = max(correct(step), key=lambda each: len(each.offers))
    return [
        StandIn(name, "crude", step, most.base, most.offers, "", most.right, says)
        for name, says in CRUDE.items()
        if STEPS[step].kind == "float" or name != "all-nan"
    ]


def positional(step: str) -> list[str]:
    """The arguments of a step before the * of its signature."""
    before, _, _ = re.sub(r"\([^)]*\)", "", STEPS[step].arguments).partition("*")
    return [name for part in before.split(",") if (name := part.partition("=")[0].strip())]


def named(step: str) -> list[str]:
    """The arguments of a step after the *."""
    return [name for name in parameters(step) if name not in positional(step)]


def options_of(step: str) -> list[str]:
    """The options of a step that a kernel may have or not."""
    return list(OPTIONS.get(step, {}))


def _offers(fault: Fault) -> tuple[str, ...]:
    return tuple(step.partition(".")[2] for step in fault.steps if "." in step)
