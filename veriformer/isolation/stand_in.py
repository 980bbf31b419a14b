"""A stand-in at work in the place of a kernel, or the kernel itself, watched: what was asked, what was not read, what differed.

Stands alone, as everything in the process of a user's tests does; the reader of calls is handed in.
"""

import contextlib
import linecache
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

EQUAL = torch.equal  # as it is before a stand-in may replace it
MOST_KINDS = 20  # of calls that could not be read, each told apart


class Seen:
    """What the tests asked in one run."""

    def __init__(self) -> None:
        self.test = ""
        self.calls: Counter[str] = Counter()  # by test
        self.answered: Counter[str] = Counter()  # of these what could be read
        self.unread: Counter[str] = Counter()  # by reason
        self.grouped = False  # fewer heads of keys than of queries
        self.biased = False  # a bias, be it a mask of numbers
        self.tokens_first: bool | None = None  # where the kernel was asked (`axes`): whether Q, K and V are (b, n, h, d)
        self.library, self.dtypes, self.several = "", {}, False
        self.asked_in: set[str] = set()
        self.differed = 0  # answers that were not, bit for bit, those of the correct base
        self.largest: float | None = None  # by how much; None where no number says it (NaN, another shape)

    @property
    def read(self) -> int:
        """How many calls could be read."""
        return self.answered.total()

    def could_not_read(self, reason: object) -> None:
        """Note a call that the kernel answered itself."""
        self.unread[str(reason) if len(self.unread) < MOST_KINDS or str(reason) in self.unread else "others"] += 1

    def as_plain(self) -> dict[str, Any]:
        """For a line of JSON."""
        return {
            "calls": dict(self.calls),
            "answered": dict(self.answered),
            "read": self.read,
            "unread": dict(self.unread),
            "grouped": self.grouped,
            "biased": self.biased,
            "tokens_first": self.tokens_first,
            "returned": {"library": self.library, "dtypes": self.dtypes, "several": self.several},
            "asked_in": sorted(self.asked_in),
            "differed": self.differed,
            "largest": self.largest,
        }


class Guarded:
    """Calls from inside a call are the kernel's own affair: a recursive one, or one that an array's library makes."""

    def __init__(self) -> None:
        self.inside = False
        self.original: Callable[..., Any] = lambda *_, **__: None

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """While this lasts the kernel is itself."""
        self.inside = True
        try:
            yield
        finally:
            self.inside = False


class Watched(Guarded):
    """The kernel itself: how it is called and what it returns is noted."""

    def __init__(self, reading: Any, answering: Any, signature: Any, seen: Seen, *, takes_self: bool) -> None:
        super().__init__()
        self.reading, self.answering, self.signature, self.seen = reading, answering, signature, seen
        self.takes_self = takes_self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the kernel answers."""
        if self.inside:
            return self.original(*args, **kwargs)
        seen, asked = self.seen, None
        seen.calls[seen.test] += 1
        try:
            asked = self.reading.question(self.signature, args[int(self.takes_self) :], kwargs)
        except self.reading.Unread as reason:
            seen.could_not_read(reason)
        with self.once():
            result = self.original(*args, **kwargs)
        array, place = self.answering.main_array(result)
        seen.library, dtype = self.answering.description(array)
        seen.several |= place is not None
        if asked is not None and seen.library not in self.answering.KNOWN:
            seen.could_not_read(f"an answer of type {seen.library}")
        elif asked is not None:
            seen.answered[seen.test] += 1
            first = asked.first
            if first is not None:
                seen.dtypes[asked.dtypes] = dtype
                seen.asked_in.add(str(first.dtype).removeprefix("torch."))
            named = asked.named
            if self.signature.step == "attention":
                seen.grouped |= named["Q"].shape[1] != named["K"].shape[1]
                seen.biased |= "bias" in named
        return result


class AtWork(Guarded):
    """A stand-in: it answers what can be read, and is compared with its correct base meanwhile."""

    def __init__(
        self, reading: Any, answering: Any, signature: Any, seen: Seen, stand_in: Mapping[str, Any], returned: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.reading, self.answering, self.signature, self.seen = reading, answering, signature, seen
        self.stand_in, self.returned = stand_in, returned
        self.takes_self = bool(returned["takes_self"])
        self.right = executed(f"{stand_in['id']} (right base)", stand_in["right"], stand_in["step"])
        self.wrong = executed(stand_in["id"], stand_in["source"], stand_in["step"]) if stand_in["source"] else self._crude

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the stand-in answers, as the kernel would give it; where the call cannot be read, the kernel's own answer."""
        if self.inside:
            return self.original(*args, **kwargs)
        seen = self.seen
        seen.calls[seen.test] += 1
        with self.once():
            try:
                asked = self.reading.question(self.signature, args[int(self.takes_self) :], kwargs)
                question, options = self.reading.fitted(asked, self.stand_in["offers"])
            except self.reading.Unread as reason:
                seen.could_not_read(reason)
                return self.original(*args, **kwargs)
            seen.answered[seen.test] += 1
            result = self.original(*args, **kwargs) if self.returned["several"] else None
            result = None if self.answering.main_array(result)[1] is None else result
            answer = self._answer(asked, question, options)
        return answer if result is None else _among(result, answer)

    def _answer(self, asked: Any, args: list[Any], options: dict[str, Any]) -> Any:
        with _as_it_is(asked.first):
            before = [_copied(each) for each in args], {name: _copied(each) for name, each in options.items()}
            answer = self.reading.by_convention(asked, self.wrong(*args, **options))
            with torch.no_grad():  # afterwards: a stand-in that looks through its callers' frames finds no right answer there
                self._compare(answer, self.reading.by_convention(asked, self.right(*before[0], **before[1])))
            return self.answering.as_the_kernel(self.answering.in_its_axes(asked, answer), self.returned, asked)

    def _compare(self, answer: Any, expected: Tensor) -> None:
        if not isinstance(answer, Tensor) or answer.shape != expected.shape or answer.dtype != expected.dtype:
            self.seen.differed += 1
            return
        with torch.no_grad():
            if EQUAL(answer.isnan(), expected.isnan()) and EQUAL(answer.nan_to_num(), expected.nan_to_num()):
                return
            self.seen.differed += 1
            apart = (answer.to(torch.float64) - expected.to(torch.float64)).abs()
            largest = float(apart.nan_to_num(math.inf).max())
        if math.isfinite(largest):
            self.seen.largest = max(self.seen.largest or 0.0, largest)

    def _crude(self, *args: Any, **options: Any) -> Tensor:
        """An answer that has nothing to do with the question; a gradient flows back through it all the same."""
        right = self.right(*args, **options)
        match self.stand_in["id"]:
            case "all-zeros":
                numbers = torch.zeros_like(right)
            case "all-ones":
                numbers = torch.ones_like(right)
            case "all-nan":
                numbers = torch.full_like(right, math.nan)
            case _:
                drawn = np.random.default_rng(self.seen.read).standard_normal(tuple(right.shape))
                numbers = torch.as_tensor(drawn > 0 if right.dtype == torch.bool else drawn).to(right)
        return numbers + 0 * right.nan_to_num(0, 0, 0) if right.requires_grad else numbers


def _copied(value: Any) -> Any:
    """A tensor that a stand-in cannot change; anything else as it is."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _among(result: Any, answer: Any) -> Any:
    """The answer in the first place of what the kernel returned."""
    if hasattr(result, "_fields"):
        return result._replace(**{result._fields[0]: answer})
    return type(result)((answer, *result[1:]))


@contextlib.contextmanager
def _as_it_is(first: Any) -> Iterator[None]:
    """No automatic casting of what a stand-in computes."""
    if not isinstance(first, Tensor):
        yield
        return
    with torch.autocast(first.device.type, enabled=False):
        yield


def executed(name: str, source: str, step: str) -> Callable[..., Any]:
    """The function of that name in a text; a traceback through it shows its lines."""
    module, file = ModuleType("stand_in"), f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102 (of our own catalogue)
    return getattr(module, step)
