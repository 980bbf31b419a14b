"""Verify and benchmark an implementation of the Transformer, step by step, against an oracle.

    from veriformer import verify
    verify("my_kernels:flash", step="attention", dtype="bfloat16")

    from veriformer import assert_within_rounding
    assert_within_rounding("attention", flash(Q, K, V), Q, K, V)

Importing this package imports none of our packages: a user's project may have a `bench` or `properties` of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veriformer.api import verify
    from veriformer.localization import localize
    from veriformer.rounding import Rounding, assert_within_rounding, oracle, tolerance, within_rounding

__all__ = ["Rounding", "assert_within_rounding", "localize", "oracle", "tolerance", "verify", "within_rounding"]

_MODULES = {"verify": "veriformer.api", "localize": "veriformer.localization"}
_ROUNDING = ("Rounding", "assert_within_rounding", "oracle", "tolerance", "within_rounding")


def __getattr__(name: str) -> Any:
    module = "veriformer.rounding" if name in _ROUNDING else _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)
