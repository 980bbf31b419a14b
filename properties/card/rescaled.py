"""An implementation whose scores are Q·Kᵀ or Q·Kᵀ/d_k, asked as one that divides by √d_k: with another Q.

All other probes know their scores then. For the widths that are asked with, 16 and 64, the factor is a power of two: exact.
"""

from collections.abc import Callable
from typing import Any

from properties.implementations.impl import Impl

FACTORS: dict[str, Callable[[int], float]] = {"1": lambda d_k: d_k**-0.5, "1/d_k": lambda d_k: d_k**0.5}
"""By what Q is multiplied, for each scale that is found."""
SCORED = ("attention", "log_sum_exp")  # steps that have the scale


class Rescaled:
    """An adapter of ours around another, which hands Q on multiplied unless a scale is asked for."""

    name: str
    arrays: str
    dtypes: tuple[str, ...]
    steps: frozenset[str]
    conventions: Any

    def __init__(self, adapter: Any, factor: Callable[[int], float]) -> None:
        self.adapter, self._factor = adapter, factor

    def __getattr__(self, name: str) -> Any:
        theirs = getattr(self.adapter, name)
        if name == "call":
            return lambda step, args, kwargs, *more, **layout: theirs(step, self._args(step, args, kwargs), kwargs, *more, **layout)
        if name in SCORED:
            return lambda *args, **kwargs: theirs(*self._args(name, args, kwargs), **kwargs)
        return theirs

    def _args(self, step: str, args: Any, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if step not in SCORED or "scale" in kwargs:
            return tuple(args)
        return (args[0] * self._factor(args[0].shape[-1]), *args[1:])


def rescaled(impl: Impl, scale: str) -> Impl:
    """The implementation as one whose scores are Q·Kᵀ/√d_k; as it is where there is nothing to be done."""
    if scale not in FACTORS:
        return impl
    return Impl(Rescaled(impl.adapter, FACTORS[scale]), impl.dtype, impl.device).within(impl.domain)


def unscaled(impl: Impl) -> Impl:
    """The implementation itself."""
    if not isinstance(impl.adapter, Rescaled):
        return impl
    return Impl(impl.adapter.adapter, impl.dtype, impl.device).within(impl.domain).under(impl.conventions)
