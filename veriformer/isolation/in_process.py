"""A callable that no other process could import (a lambda, a closure): run in this process, and said to be not isolated."""

from collections.abc import Callable
from typing import Any

from properties.conventions import declarations
from properties.implementations.autograd import derivable
from properties.steps import OPTIONS, STEPS, offered_options
from veriformer.isolation.proxy import DTYPES
from veriformer.isolation.worker import TargetRefused, differentiated, offered, parameters_of


class InProcess:
    """The adapter of an object that is at hand; `step` says which one a callable is. Raises TargetRefused for one that is none."""

    isolated = False
    conventions: Any
    contract: Any
    domain: Any

    def __init__(self, name: str, thing: Any, step: str | None, arrays: str | None, *, backward: bool = False) -> None:
        self.name, self._steps = name, offered(thing, name.rpartition(".")[2], step, list(STEPS))
        self.arrays: str = arrays or getattr(thing, "arrays", "torch")
        self.dtypes: tuple[str, ...] = tuple(getattr(thing, "dtypes", DTYPES[self.arrays]))
        self.derived = frozenset(derivable(self._steps) if backward and self.arrays == "torch" else ())
        self._steps |= differentiated(self._steps, list(self.derived))
        self.steps = frozenset(self._steps)
        parameters = {step: parameters_of(self._steps[step]) for step in OPTIONS if step in self._steps}
        try:
            self.options = offered_options(parameters, getattr(thing, "options", ()))
            declarations.take(
                self, getattr(thing, "conventions", None), getattr(thing, "contract", None), getattr(thing, "domain", None)
            )
        except ValueError as error:
            raise TargetRefused(f"{name}: {error}") from None

    def __getattr__(self, step: str) -> Callable[..., Any]:
        if step.startswith("_") or step not in self._steps:
            raise AttributeError(step)
        return self._steps[step]
