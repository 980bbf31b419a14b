"""Which of the functions that an implementation may be compared or timed by it has replaced.

Code that reports a lie patches what it is judged by: `torch.allclose` says that all is well, `time.perf_counter` that no time has
passed. None of ours is fooled by that in an implementation's own process, and in ours they are put back after each call. But who
does so is named, whatever its numbers are.

Stands alone (standard library only): an implementation's process loads this file by its path.
"""

import sys
from typing import Any

FUNCTIONS = {
    "time": ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "process_time_ns"),
    "timeit": ("default_timer", "Timer.timeit", "Timer.repeat"),
    "math": ("isclose", "isnan"),
    "numpy": ("allclose", "isclose", "array_equal", "isnan", "isfinite"),
    "numpy.testing": ("assert_allclose", "assert_array_equal", "assert_equal", "assert_almost_equal"),
    "torch": ("allclose", "equal", "isclose", "isnan", "isfinite"),
    "torch._tensor": ("Tensor.allclose", "Tensor.equal", "Tensor.isclose", "Tensor.__eq__"),
    "torch.testing": ("assert_close",),
    "torch.cuda": ("synchronize", "Event.record", "Event.synchronize", "Event.elapsed_time"),
    "triton.testing": ("assert_close", "do_bench"),
    "_pytest.runner": ("pytest_runtest_makereport", "CallInfo.from_call"),
    "_pytest.reports": ("TestReport.from_item_and_call",),
}
"""By module; a name with a dot is a method. A module that is not imported is left alone."""

_ABSENT = object()


class Functions:
    """What these functions are now."""

    def __init__(self) -> None:
        self._were: list[tuple[str, Any, str, Any]] = []
        for module, names in FUNCTIONS.items():
            if (loaded := sys.modules.get(module)) is not None:
                self._were += [(f"{module}.{name}", *_held(loaded, name)) for name in names]

    def replaced(self) -> list[str]:
        """The names of those that are others now."""
        return [said for said, owner, name, was in self._were if vars(owner).get(name, _ABSENT) is not was]

    def put_back(self) -> list[str]:
        """The names of those that were replaced, each of which is again what it was."""
        found = self.replaced()
        for _, owner, name, was in [each for each in self._were if each[0] in found]:
            if was is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, was)
        return found


def _held(module: Any, name: str) -> tuple[Any, str, Any]:
    """Who holds the function, under which name, and what it is; a method that is inherited is absent."""
    holder, dot, method = name.partition(".")
    owner = getattr(module, holder, module) if dot else module
    attribute = method if dot and owner is not module else holder
    return owner, attribute, vars(owner).get(attribute, _ABSENT)
