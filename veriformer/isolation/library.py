"""A library's adapter in a process of its own."""

from properties.implementations.registry import library_missing, library_target
from veriformer.isolation.proxy import ImplementationProxy, TargetError


def library(name: str, device: str = "cpu", max_time: float = 10.0, *, backward: bool = False) -> ImplementationProxy:
    """The adapter of that name in LIBRARIES. Raises TargetError, in one line, where its library is not installed."""
    if missing := library_missing(name):
        raise TargetError(f"{name}: {' and '.join(missing)} not installed; pip install -e '.[libraries]' brings it")
    target = library_target(name)
    return ImplementationProxy(target, device=device, max_time=max_time, import_time=120.0, name=name, backward=backward)
