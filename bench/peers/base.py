"""A peer, and a peer ready to be timed. Starts fast: nothing heavy is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bench.workloads import Workload
    from properties.inputs.parameters import Call


@dataclass
class Built:
    """A peer ready to be timed: all conversion is done."""

    call: Callable[..., Any]
    arguments: list[tuple[Any, ...]]  # one for each variant of the inputs
    dispatched: str  # the code that will run
    dtype: str  # in which it computes and is judged
    caching_allocator: bool = False  # it gives no memory back, so that a call's own need cannot be seen


class Peer(Protocol):
    """An implementation to be timed."""

    @property
    def name(self) -> str:
        """As in `veriformer bench --peers`."""
        ...

    def build(self, workload: "Workload", calls: "list[Call]", dtype: str, device: str) -> Built:
        """Convert everything, outside the clock. Raises NotOffered for what it cannot do, ImportError for what is not installed."""
        ...
