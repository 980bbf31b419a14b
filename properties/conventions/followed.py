"""What an implementation was found to follow, in words: for the first lines of a result, beside what PyTorch does."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, cast

from properties.implementations.contract import Contract
from properties.implementations.convention_probes import PROBES, Settled, found
from properties.implementations.conventions import CONVENTIONS, OURS, Conventions
from properties.implementations.domain_probes import answered_outside
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from reports.records import Choice, Follows

PEER = "torch.sdpa"


def followed(impl: Impl, settled: Settled) -> Follows:
    """The conventions that an implementation declares, or that its steps show; what it has no step for is left out."""
    own = impl.adapter.conventions or Conventions()
    choices = [
        _choice(impl, name, getattr(settled.conventions, name), "found" if name in settled.found else "declared")
        for name in CONVENTIONS
        if name in settled.found or (getattr(own, name) is not None and any(map(impl.offers, PROBES[name].steps)))
    ]
    contract, domain = in_words(getattr(impl.adapter, "contract", None)), impl.domain
    takes = {"domain": str(domain), "domain_declared": domain.declared, "warning": answered_outside(impl)} if domain else {}
    return Follows(impl.name, cast("Any", impl.dtype), impl.device, choices, contract, **takes)


def _choice(impl: Impl, name: str, choice: str, how: Any) -> Choice:
    convention = CONVENTIONS[name]
    if name == "mask_polarity" and choice == OURS.mask_polarity:
        how = "signature"
    seen = None if impl.name == PEER else of_torch(impl.dtype, impl.device, name)
    differs = seen not in (None, choice, convention.allows)
    return Choice(name, convention.what, choice, convention.choices[choice], how, convention.choices[seen] if seen else "", differs)


@cache
def of_torch(dtype: str, device: str, name: str) -> str | None:
    """What PyTorch's own functions are seen to do, asked as any implementation is; None where they have no such step."""
    return found(Impl(built_in(PEER), dtype, device).under(Conventions()), name)


def in_words(contract: Contract | Mapping[str, Any] | None) -> str:
    """A contract as a command line says it."""
    if contract is None:
        return ""
    said = asdict(contract) if isinstance(contract, Contract) else contract
    return ",".join(f"{name}={value}" for name, value in _leaves(said))


def _leaves(said: Mapping[str, Any], outer: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in said.items():
        found += _leaves(value, f"{outer}{name}.") if isinstance(value, Mapping) else [(f"{outer}{name}", value)]
    return found
