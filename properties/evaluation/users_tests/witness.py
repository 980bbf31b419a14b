"""The smallest input that would have told a fault, within what a kernel takes: its options, dtypes, sizes, masks and conventions.

Those properties are asked that the committed score says find the fault, with the seed they found it with. If none of them does
within what the kernel takes, its signature is not seen to show the fault. Of a kernel with limits they are asked fewer examples:
what cannot be shown costs most.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from properties.counterexample.find import Counterexample, smallest
from properties.evaluation.detection.catalogue import entry
from properties.evaluation.detection.fault import Fault, executed
from properties.evaluation.detection.search import is_breach, judged, planned
from properties.evaluation.users_tests.reading import Signature, Unread, by_convention, fitted, question
from properties.evaluation.users_tests.stand_ins import StandIn, named, of_fault, option_of, options_of, positional, step_of
from properties.implementations.conventions import Conventions
from properties.implementations.domain import Domain
from properties.implementations.impl import Impl
from properties.implementations.layouts import BESIDE, CONTIGUOUS, LAYOUTS
from properties.steps import positional_names
from properties.verdict.listing import Test, claim_of

SCORE = Path(__file__).parents[2] / "data" / "score.json"
SECONDS = 4.0  # to make one input small
MOST, EXAMPLES = 3, 50  # properties, and examples of each, of a kernel with limits
OURS_HERE = re.compile(r" \(witness\.py:\d+ in \w+\)$")  # where an exception passed, in a message
LONG = re.compile(r"-?\d+\.\d{9,}(?![\de])")  # a number with more digits than tell it from another
FEW = 12  # numbers of an array that are shown, of a larger one its shape

Line = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """What a user's kernel takes and follows, as far as it is declared or found out; `tokens_first`: its Q is (b, n, h, d)."""

    step: str
    options: tuple[str, ...]
    dtypes: tuple[str, ...]
    conventions: Conventions
    domain: Domain | None = None
    tokens_first: bool = False

    def as_plain(self) -> Line:
        """For a line of JSON."""
        domain = None
        if self.domain is not None:
            limits = {name: None if each is None else sorted(each) for name, each in self._limits()}
            domain = {"axes": dict(self.domain.axes), "declared": self.domain.declared, "said": dict(self.domain.said), **limits}
        return asdict(replace(self, domain=None)) | {"domain": domain}

    def _limits(self) -> Iterator[tuple[str, frozenset[str] | None]]:
        for name in ("masks", "layouts", "steps"):
            yield name, getattr(self.domain, name)

    @classmethod
    def of(cls, plain: Line) -> "Kernel":
        """From a line of JSON."""
        domain = plain["domain"]
        if domain is not None:
            axes = {axis: rule if isinstance(rule, str) else tuple(rule) for axis, rule in domain["axes"].items()}
            sets = {name: None if domain[name] is None else frozenset(domain[name]) for name in ("masks", "layouts", "steps")}
            domain = Domain(axes, declared=domain["declared"], said=domain["said"], **sets)
        conventions = Conventions(**plain["conventions"])
        return cls(plain["step"], tuple(plain["options"]), tuple(plain["dtypes"]), conventions, domain, plain["tokens_first"])

    def signature(self, parameters: list[str] | None = None) -> Signature:
        """How its calls are read; by the step's own names where its parameters are not given."""
        said = {name: choice for name, choice in asdict(self.conventions).items() if choice is not None}
        return Signature(self.step, positional(self.step), named(self.step), parameters, said, self.tokens_first)


class InItsPlace:
    """A fault as an implementation with the kernel's signature: the adapter that properties are run on."""

    arrays = "torch"
    contract = None

    def __init__(self, stand_in: StandIn, kernel: Kernel) -> None:
        self.name, self.file = stand_in.id, f"<{stand_in.id}>"
        self.dtypes, self.steps, self.options = kernel.dtypes, frozenset({kernel.step}), frozenset(kernel.options)
        self.conventions, self.domain = kernel.conventions, kernel.domain
        self._stand_in, self._signature = stand_in, replace(kernel, tokens_first=False).signature()
        self.close()

    def close(self) -> None:
        """Forget everything: the next call is the first."""
        self._function: Callable[..., Any] = getattr(executed(self.file, self._stand_in.source), self._stand_in.step)

    def __getattr__(self, step: str) -> Callable[..., Any]:
        if step.startswith("_") or step not in self.steps:
            raise AttributeError(step)
        return self._call

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        try:
            asked = question(self._signature, args, kwargs)
            given, options = fitted(asked, self._stand_in.offers)
        except Unread as reason:
            raise NotImplementedError(str(reason)) from None
        return by_convention(asked, self._function(*given, **options))


def witness(identifier: str, kernel: Line, examples: int | None) -> Line:
    """Whether the kernel's signature is seen to show a fault ("shown"): by which property, and with which smallest "input"."""
    fault, takes = entry(identifier), Kernel.of(kernel)
    line: Line = {"id": identifier, "shown": False}
    if option_of(fault) and option_of(fault) not in takes.options:
        return line | {"why": f"it has no {option_of(fault)}"}
    if fault.dtype not in takes.dtypes and entry(identifier).fault_class == "cheat":
        return line | {"why": f"it does not take {fault.dtype}"}
    dtype = fault.dtype if fault.dtype in takes.dtypes else takes.dtypes[0]
    limited = bool(takes.domain) or dtype != fault.dtype
    for test, seed in _tests(fault, takes, dtype)[: MOST if limited else None]:
        implementation: Any = InItsPlace(of_fault(fault), takes)
        judgement = judged(implementation, dtype, test, seed, examples or (EXAMPLES if limited else None))
        if is_breach(judgement, implementation):
            found = smallest(Impl(implementation, dtype), claim_of(test), test.__name__, judgement.calls, seconds=SECONDS)
            says = in_words(found) if found is not None else judgement.message.partition("\n")[0]
            return line | {"shown": True, "property": test.__name__, "claim": claim_of(test), "dtype": dtype, "input": says}
    return line | {"why": f"nothing that it takes was seen to show it; it shows when: {fault.shows}"}


def _tests(fault: Fault, kernel: Kernel, dtype: str) -> list[tuple[Test, int]]:
    """The properties that are known to find the fault, each with its seed, those that took fewest examples first."""
    step = step_of(fault)
    offered = dict.fromkeys(
        (fault.steps[0], step, *(f"{step}.{option}" for option in kernel.options if option in options_of(step)))
    )
    fitting = planned(replace(fault, steps=tuple(offered), dtype=dtype))
    known = _known().get(fault.id, {})
    first = sorted((test for test in fitting if test.__name__ in known), key=lambda test: known[test.__name__][1])
    return [(test, known[test.__name__][0]) for test in first]


@cache
def _known() -> dict[str, dict[str, tuple[int, int]]]:
    """By fault and property the seed and the number of examples that it was found with."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for each in json.loads(SCORE.read_text(encoding="utf-8"))["entries"]:
        caught = sorted((search for search in each["searches"] if search["caught"]), key=lambda search: -search["examples"])
        found[each["id"]] = {search["property"]: (search["seed"], search["examples"]) for search in caught}
    return found


def in_words(found: Counterexample) -> str:
    """The last call in a line, small arrays with their numbers, and what is wrong with its answer."""
    call = found.calls[-1]
    names = positional_names(call.step, len(call.args))
    arguments = [*zip(names, call.args, strict=True), *call.kwargs.items()]
    said = ", ".join(f"{name} {_value(value)}" for name, value in arguments if value is not None)
    arrays = [name for name, value in arguments if isinstance(value, np.ndarray)]
    after = f", after {len(found.calls) - 1} other calls" if len(found.calls) > 1 else ""
    detail = OURS_HERE.sub("", found.fault.detail.removeprefix(f"{found.implementation}."))
    return f"{said}{_in_memory(call.layout, arrays)}{after}: {LONG.sub(lambda number: f'{float(number[0]):.9g}', detail)}"


def _in_memory(layout: str | None, arrays: list[str]) -> str:
    """Which arrays lie in memory in another way than one after the other, or that one call came before with the same arrays."""
    if layout is None:
        return ""
    if BESIDE not in layout:
        return f", {layout} in memory" if layout in LAYOUTS else f", {layout}"
    ways = dict(zip(arrays, layout.split(BESIDE), strict=False))
    return "".join(f", {name} {way} in memory" for name, way in ways.items() if way != CONTIGUOUS)


def _value(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    shape = "×".join(map(str, value.shape)) or "one number"
    if value.size > FEW:
        return shape
    return f"{shape} of {'zeros' if value.dtype != bool and value.size and not value.any() else value.ravel().tolist()}"
