"""See every intermediate matrix of the oracle under a stable dotted name.

    with Trace() as trace:
        transformer(source, target, parameters, architecture)
    trace["encoder.0.self_attention.head.3.scores"]  # 16×16

Outside a `Trace`, `record` hands its matrix through and keeps nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_active: ContextVar["Trace | None"] = ContextVar("active_trace", default=None)
_path: ContextVar[str] = ContextVar("path_of_the_step", default="")


class Trace(dict[str, np.ndarray]):
    """The matrices of one run, by name, in the order they were computed. Traces do not nest: the innermost one records."""

    def __enter__(self) -> "Trace":  # noqa: PYI034 (beartype checks each method by itself and has no Self)
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)

    def keep(self, name: str, matrix: np.ndarray) -> np.ndarray:
        """Store `matrix` under its full name and give back what the following steps go on with."""
        self[name] = matrix
        return matrix


def record(name: str, matrix: np.ndarray) -> np.ndarray:
    """Show `matrix` to the active trace as `name`, below the names of the steps we are inside of."""
    trace = _active.get()
    return matrix if trace is None else trace.keep(_path.get() + name, matrix)


@contextmanager
def inside(step: str) -> Iterator[None]:
    """Everything recorded in this block carries `step.` in front of its name."""
    token = _path.set(f"{_path.get()}{step}.")
    try:
        yield
    finally:
        _path.reset(token)
