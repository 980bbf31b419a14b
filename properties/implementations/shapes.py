"""The oracle's shapes, which the suite has checked: once for each set of shapes, since a check costs as much as a small step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import numpy as np

_checked: set[tuple[Any, ...]] = set()


@contextmanager
def shapes_checked_once(step: str, *arguments: Any) -> Iterator[None]:
    """Without checks, if the step has been asked for arrays of these shapes, and otherwise the same arguments, before."""
    if jaxtyping.config.jaxtyping_disable:
        yield
        return
    asked = (step, _shapes(arguments))
    if asked in _checked:
        with shapes_unchecked():
            yield
        return
    yield
    _checked.add(asked)


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """Where the same calls come in thousands, as on the rounding simulator."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _shapes(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _shapes(part)) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_shapes, value))
    return (value.dtype, value.shape) if isinstance(value, np.ndarray) else repr(value)
