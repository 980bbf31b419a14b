"""Verify and benchmark an implementation of the Transformer, step by step, against an oracle.

    from veriformer import verify
    verify("my_kernels:flash", step="attention", dtype="bfloat16")

Importing this package imports none of our rooms: a user's project may have a `bench` or `properties` of its own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veriformer.api import verify

__all__ = ["verify"]


def __getattr__(name: str) -> Any:
    if name != "verify":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from veriformer.api import verify

    return verify
