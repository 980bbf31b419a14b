"""What is known of the kernel before its tests are scored: options, dtypes, conventions and domain, declared or found by probes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from properties.conventions.declarations import Declarations
from properties.evaluation.users_tests.stand_ins import options_of
from properties.evaluation.users_tests.witness import Kernel
from properties.implementations.conventions import CHOICES, OURS, Conventions
from properties.implementations.domain import Domain
from veriformer.users_tests.session import Collected

PROBED = 2.0  # seconds that a call may take
ALL = ("float64", "float32", "bfloat16", "float16")


def kernel(
    target: str, step: str, declared: Declarations, dtypes: tuple[str, ...], collected: Collected, seen: dict[str, Any]
) -> Kernel:
    """What the kernel takes and follows. `seen` is what the tests asked of it; what cannot be probed is as declared, else ours."""
    dtypes_asked, turned = dtypes or tuple(seen["asked_in"]) or ALL, bool(seen["tokens_first"])
    shown = Kernel(step, (), dtypes_asked, said(declared), declared.domain, turned)
    library = seen["returned"]["library"]
    adapter = _adapter(target, shown, "numpy" if library in ("numpy", "jax") else "torch", collected)
    if adapter is not None:
        with adapter:
            own = _probed(declared.about(adapter), step, dtypes)
        shown = replace(own, tokens_first=turned) if own else shown
    asked_for = {"grouped_heads": seen["grouped"], "bias": seen["biased"]}
    has = {*shown.options, *_by_name(shown, collected), *(option for option, asked in asked_for.items() if asked)}
    asked = tuple(dtype for dtype in ALL if dtype in {*shown.dtypes, *(seen["asked_in"] if not dtypes else [])})
    return replace(
        shown, options=tuple(name for name in options_of(step) if name in has), dtypes=asked, domain=_domain(shown, collected)
    )


def said(declared: Declarations) -> Conventions:
    """The conventions that are declared, and the oracle's own for the rest."""
    return replace(OURS, **{name: choice for name, choice in declared.conventions.items() if choice is not None})


def _by_name(shown: Kernel, collected: Collected) -> list[str]:
    return shown.signature(collected.parameters).options(options_of(shown.step)) if collected.parameters is not None else []


def _domain(shown: Kernel, collected: Collected) -> Domain | None:
    """With no masks, where the kernel has no argument for one."""
    if shown.step != "attention" or collected.parameters is None:
        return shown.domain
    if "mask" in shown.signature(collected.parameters).places().values():
        return shown.domain
    return replace(shown.domain or Domain(declared=False), masks=frozenset())


def _adapter(target: str, shown: Kernel, arrays: str, collected: Collected) -> Any:
    """The kernel in a process of its own; None where it cannot be called as `verify` calls it."""
    from veriformer.isolation.proxy import ImplementationProxy, TargetError

    own = {step: name for name, step in shown.signature(collected.parameters).places().items()}
    by_place = [*own.values()][:4] == [own.get(name) for name in ("Q", "K", "V", "mask")]

    class InItsSignature(ImplementationProxy):
        """Asked for attention with its own order of axes, and its own name of a mask that is not the fourth argument."""

        def call(self, step: str, args: Sequence[Any], kwargs: dict[str, Any], *others: Any, **named: Any) -> Any:
            Q, K, V, *mask = args
            if shown.tokens_first:
                Q, K, V = (np.ascontiguousarray(X.swapaxes(1, 2)) for X in (Q, K, V))
            if mask and "mask" in own and not by_place:
                kwargs, mask = {**kwargs, own["mask"]: mask[0]}, []
            answer = super().call(step, [Q, K, V, *mask], kwargs, *others, **named)
            return answer.swapaxes(1, 2) if shown.tokens_first else answer

    kind = InItsSignature if shown.step == "attention" else ImplementationProxy
    try:
        return kind(target, shown.step, arrays, max_time=PROBED, path=collected.path)
    except TargetError:
        return None


def _probed(adapter: Any, step: str, dtypes: tuple[str, ...]) -> Kernel | None:
    """What it declares, and for the rest what probes show; None where it answers none."""
    from properties.implementations.convention_probes import settle
    from properties.implementations.domain_probes import found, takes_any
    from properties.implementations.impl import Impl

    taken = tuple(each for each in dtypes or adapter.dtypes if step != "attention" or takes_any(Impl(adapter, each)))
    if not taken:
        return None
    first = "float32" if "float32" in taken else taken[0]
    impl = Impl(adapter, first)
    domain = impl.domain or found(impl)
    settled = settle(Impl(adapter, first).within(domain), adapter.conventions).conventions
    settled = replace(settled, **{name: getattr(OURS, name) for name in CHOICES if getattr(settled, name) is None})
    return Kernel(step, tuple(adapter.options), taken, settled, domain)
