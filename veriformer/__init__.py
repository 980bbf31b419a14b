"""Verify and benchmark an implementation of the Transformer, step by step, against an oracle.

    from veriformer import verify
    verify("my_kernels:flash", step="attention", dtype="bfloat16")

Importing this package imports none of our packages: a user's project may have a `bench` or `properties` of its own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veriformer.api import verify
    from veriformer.localization import localize

__all__ = ["localize", "verify"]


def __getattr__(name: str) -> Any:
    if name == "verify":
        from veriformer.api import verify

        return verify
    if name == "localize":
        from veriformer.localization import localize

        return localize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
