"""What a pytest run of the properties is asked to verify: implementations, dtypes, claims, and how each is had.

Imports no package of ours before an implementation is asked for: the plugin is loaded in every pytest run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from veriformer import packages
from veriformer.run_options import RunOptions

if TYPE_CHECKING:
    from properties.implementations.convention_probes import Settled
    from properties.implementations.domain import Domain
    from properties.implementations.impl import Adapter, Impl
    from reports.records import Follows
    from veriformer.replay import Failures

PLAN = pytest.StashKey["Plan"]()  # of a run of pytest


class Cell(NamedTuple):
    """One column of the matrix: an implementation at a dtype on a device."""

    implementation: str
    dtype: str
    device: str

    def __str__(self) -> str:
        return "-".join(self)


@cache
def must_be_ours() -> None:
    """Our folders have plain names: raise UsageError where a user's own folder of such a name is imported in place of ours."""
    if mistake := packages.mistaken(("reference", "optimized", "properties", "reports")):
        raise pytest.UsageError(mistake)


@contextmanager
def refused() -> Iterator[None]:
    """What is refused in here is a usage error of pytest's."""
    from veriformer.settings import Refused

    try:
        yield
    except Refused as refusal:
        raise pytest.UsageError(str(refusal)) from None


@dataclass
class Plan:
    """What this run is asked to verify."""

    implementations: tuple[str, ...]
    options: RunOptions
    seed: int
    run: Path | None
    callables: dict[str, Any] = field(default_factory=dict)  # of `veriformer.verify`: what no other process could import, by name
    _adapters: dict[str, "Adapter"] = field(default_factory=dict)
    _settled: dict[Cell, "Settled"] = field(default_factory=dict)
    _domains: dict[Cell, "Domain | None"] = field(default_factory=dict)
    _unsteady: dict[Cell, list[Exception]] = field(default_factory=dict)  # what probes besides those of conventions were told once
    _said: set[Cell] = field(default_factory=set)  # whose unsteady answers to probes a property has told

    def check(self) -> None:
        """Refuse, in one line, what does not exist, cannot be had or means nothing, before each file of properties would say so.

        A process for what is not built in imports torch meanwhile. Raises UsageError.
        """
        if not (self.implementations or self.options.dtypes or self.options.claims):
            return
        must_be_ours()
        if any(":" in name for name in self.implementations):
            from veriformer.isolation.processes import zygote

            zygote(with_torch=self.options.arrays != "numpy")
        from veriformer import options

        with refused():
            options.declarations(**self.options.declared)
            options.known_step(self.options.step)
            options.known_dtypes(self.options.dtypes)
            for device in self.devices:
                options.available(device)
            _ = self.claims
        for name in self.implementations:
            self.adapter(name)

    @property
    def devices(self) -> tuple[str, ...]:
        """Where everything is to run."""
        return tuple(self.options.device.split(","))

    @cached_property
    def claims(self) -> tuple[str, ...]:
        """Those to be verified; none: all. Raises UsageError for one that does not exist."""
        if not self.options.claims:
            return ()
        from veriformer import options

        with refused():
            return options.known_claims(self.options.claims)

    def close(self) -> None:
        """End the processes of the implementations; one that is asked again starts a new one."""
        for adapter in self._adapters.values():
            getattr(adapter, "close", lambda: None)()

    @cached_property
    def failures(self) -> "Failures":
        """Those that this run has met."""
        from veriformer.replay import Failures

        return Failures(self.run)

    def adapter(self, name: str) -> "Adapter":
        """The implementation of that name, made once. Raises UsageError for one that cannot be had."""
        if name not in self._adapters:
            self._adapters[name] = self._made(name)
        return self._adapters[name]

    def _made(self, name: str) -> "Adapter":
        from veriformer import options

        with refused():
            adapter = self._as_it_is(name)
            several = len(self.implementations) > 1  # of which not each must support all
            dtypes = tuple(dtype for dtype in self.options.dtypes if dtype in adapter.dtypes or not several)
            return options.declared_of(adapter, dtypes, options.declarations(**self.options.declared))

    def _as_it_is(self, name: str) -> "Adapter":
        from veriformer.options import adapter_of

        said = self.options
        if name not in self.callables:
            return adapter_of(name, said.step, said.arrays, self.devices[0], said.max_time, backward=said.backward)
        from veriformer.isolation.in_process import InProcess
        from veriformer.isolation.worker import TargetRefused

        try:
            return InProcess(name, self.callables[name], said.step, said.arrays, backward=said.backward)
        except TargetRefused as refusal:
            raise pytest.UsageError(str(refusal)) from None

    def impl(self, cell: Cell) -> "Impl":
        """The implementation of that column, with the conventions that it is held to."""
        from properties.implementations.impl import Impl

        impl = Impl(self.adapter(cell.implementation), cell.dtype, cell.device)
        return impl.within(self.domain(cell)).under(self.settled(cell).conventions)

    def domain(self, cell: Cell) -> "Domain | None":
        """Which arguments the implementation takes: as declared, or as probes show; what is built in takes all. Asked once."""
        from properties.implementations.domain_probes import found
        from properties.implementations.registry import BUILT_IN

        if cell not in self._domains:
            impl = self._asked_twice(cell)
            probed = impl.domain is None and cell.implementation not in BUILT_IN
            self._domains[cell] = found(impl) if probed else impl.domain
        return self._domains[cell]

    def settled(self, cell: Cell) -> "Settled":
        """What the implementation declares, and for the rest what probes show: asked once."""
        from properties.implementations.convention_probes import settle
        from properties.implementations.impl import Impl

        if cell not in self._settled:
            impl = Impl(self.adapter(cell.implementation), cell.dtype, cell.device).within(self.domain(cell))
            self._settled[cell] = settle(impl, impl.adapter.conventions)
        return self._settled[cell]

    def unsteady(self, cell: Cell) -> Exception | None:
        """The first answer to a probe that did not come again, for the first property that asks: none other sees it."""
        if cell in self._said:
            return None
        self._said.add(cell)
        settled = self.settled(cell)
        return next(iter((*self._unsteady.get(cell, ()), *settled.unsteady)), None)

    def _asked_twice(self, cell: Cell) -> "Impl":
        """The implementation for probes that ask once, each answer that does not come again kept for `unsteady`."""
        from properties.implementations.asked_twice import AskedTwice

        unsteady = self._unsteady.setdefault(cell, [])
        return AskedTwice(self.adapter(cell.implementation), cell.dtype, cell.device, unsteady)

    def followed(self, cell: Cell) -> "Follows":
        """The same in words, and what probes show of its arithmetic."""
        import msgspec

        from properties.card.card import arithmetic_of
        from properties.conventions.followed import followed

        impl = self.impl(cell)
        twice = self._asked_twice(cell).within(impl.domain).under(impl.conventions)
        return msgspec.structs.replace(followed(impl, self.settled(cell)), arithmetic=arithmetic_of(twice))

    def cells(self) -> Iterator[Cell]:
        """Every column that the implementations support."""
        for name in self.implementations:
            offered = tuple(self.adapter(name).dtypes)
            for dtype in self.options.dtypes or offered:
                if dtype in offered:
                    yield from (Cell(name, dtype, device) for device in self.devices)
