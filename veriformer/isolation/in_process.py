"""A callable that no other process could import (a lambda, a closure): run in this process, and said to be not isolated."""

from collections.abc import Callable
from typing import Any

from properties.conventions import declarations
from properties.implementations.autograd import derivable
from properties.steps import STEPS
from veriformer.isolation.proxy import DTYPES
from veriformer.isolation.worker import TargetRefused, differentiated, offered


class InProcess:
    """The adapter of an object that is at hand; `step` says which one a callable is. Raises TargetRefused for one that is none."""

    isolated = False
    conventions: Any
    contract: Any

    def __init__(self, name: str, thing: Any, step: str | None, arrays: str | None, *, backward: bool = False) -> None:
        self.name, self._steps = name, offered(thing, name.rpartition(".")[2], step, list(STEPS))
        self.arrays: str = arrays or getattr(thing, "arrays", "torch")
        self.dtypes: tuple[str, ...] = tuple(getattr(thing, "dtypes", DTYPES[self.arrays]))
        if backward and self.arrays == "torch":
            self._steps |= differentiated(self._steps, derivable(self._steps))
        self.steps = frozenset(self._steps)
        try:
            declarations.take(self, getattr(thing, "conventions", None), getattr(thing, "contract", None))
        except ValueError as error:
            raise TargetRefused(f"{name}: {error}") from None

    def __getattr__(self, step: str) -> Callable[..., Any]:
        if step.startswith("_") or step not in self._steps:
            raise AttributeError(step)
        return self._steps[step]
