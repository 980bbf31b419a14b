"""An implementation under test, seen from a property: float64 NumPy arrays in, float64 NumPy arrays out.

The implementation rounds nothing: it hands over numbers that are exactly representable in the dtype under test (it refuses others),
checks what comes back (type, shape, dtype) and what was left behind (inputs unchanged), and widens the result to float64.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from types import FrameType
from typing import Any, Protocol, Self

import numpy as np
import torch
from hypothesis.errors import HypothesisException, UnsatisfiedAssumption

from properties.implementations import cached, layouts, returned
from properties.implementations.accepted import accepted
from properties.implementations.autograd import FORWARD
from properties.implementations.cached import CACHES, play
from properties.implementations.calls import calls
from properties.implementations.convention_probes import settle
from properties.implementations.conventions import MASKED, Conventions, answered, asked, fully_masked
from properties.implementations.domain import Domain, read, sizes_of
from properties.implementations.laid import Laid, laid
from properties.implementations.layouts import Handed
from properties.implementations.patched import Functions
from properties.steps import STEPS, expected_shape, expected_shapes, option_name, positional_names
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, NotOffered, record

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
OURS_HERE = {str(module.__file__) for module in (cached, layouts, returned)} | {__file__}  # files a traceback goes through
NUMPY_DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16}


class Adapter(Protocol):
    """What an implementation looks like to us; besides these it has one method for every name in `steps`.

    It may also have `options`, the names of those options that it offers (`properties.steps.option_name`).
    """

    name: str
    arrays: str  # "torch" or "numpy"
    dtypes: tuple[str, ...]
    steps: frozenset[str]
    conventions: Any


class Impl:
    """One implementation at one dtype on one device; every step it offers is a method of this object."""

    layout: str | None = None  # of its inputs in memory, as `layouts.of` reads it; layouts.REFILLED, layouts.ASKED_BEFORE

    def __init__(self, adapter: Adapter, dtype: str = "float64", device: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        self.adapter, self.dtype, self.device = adapter, dtype, device

    @cached_property
    def conventions(self) -> Conventions:
        """What the implementation declares, and what probes show of the rest; an answer that did not come again is raised."""
        settled = settle(self, self.adapter.conventions)
        for unsteady in settled.unsteady:
            raise unsteady
        return settled.conventions

    @cached_property
    def domain(self) -> Domain | None:
        """Which arguments the implementation says it takes; None: all. Whoever finds it out by probes sets it."""
        said = getattr(self.adapter, "domain", None)
        return said if said is None or isinstance(said, Domain) else read(said, self.adapter.steps)

    def within(self, domain: Domain | None) -> Self:
        """The same implementation, taken to have this domain."""
        other = self.another()
        other.domain = domain
        return other

    def another(self) -> Self:
        """The same implementation, of which nothing is settled yet."""
        return type(self)(self.adapter, self.dtype, self.device)

    def under(self, conventions: Conventions) -> Self:
        """The same implementation, taken to follow these conventions."""
        other = self.within(self.domain)
        other.conventions = conventions
        return other

    def reading(self, layout: str | None) -> Self:
        """The same implementation, given arrays that lie in memory in another way."""
        other = self.under(self.conventions)
        other.layout = layout
        return other

    @property
    def name(self) -> str:
        """The implementation's name."""
        return self.adapter.name

    def __repr__(self) -> str:
        return f"Impl({self.name}, {self.dtype}, {self.device})"

    def offers(self, *steps: str) -> bool:
        """Whether the implementation has all these steps; and, for one named `step.option`, that option of it."""
        options: frozenset[str] = getattr(self.adapter, "options", frozenset())
        named = [step.partition(".") for step in steps]
        return all(step in self.adapter.steps and (not dot or option_name(step, option) in options) for step, dot, option in named)

    def representable(self, values: np.ndarray) -> np.ndarray:
        """`values` rounded to the nearest numbers of the dtype under test, as float64."""
        rounded = torch.from_numpy(np.array(values, dtype=np.float64)).to(DTYPES[self.dtype])
        return rounded.to(torch.float64).numpy()

    def __getattr__(self, step: str) -> Callable[..., Any]:
        if step not in STEPS:
            raise AttributeError(step)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.call(step, *args, **kwargs)

        return call

    def call(self, step: str, *args: Any, **kwargs: Any) -> Any:
        """Run `step` on these arguments.

        Raises ImplementationError for a wrong type, shape or dtype, a changed input or an exception of the implementation's; a
        ValueError of its own is such an exception too (`refuses` tells whether it refuses an argument). Its NotImplementedError
        says that it does not take these arguments: the example is not counted.
        """
        try:
            answer = self.attempt(step, *args, **kwargs)
        except NotOffered as refusal:
            record.refused(str(refusal))
            raise UnsatisfiedAssumption from None  # as `hypothesis.reject()`, which may not be called outside of drawn examples
        record.answered()
        return answer

    def attempt(self, step: str, *args: Any, **kwargs: Any) -> Any:
        """As `call`; raises NotOffered for arguments that the implementation does not take."""
        self._must_be_representable(step, _arrays((args, kwargs)))
        calls.note(step, args, kwargs, self.layout)
        larger = self.laid(step, args, kwargs)
        their_args, their_kwargs = asked(step, larger.args, larger.kwargs, self.conventions)
        try:
            result = self._result(step, their_args, their_kwargs)
        except NotOffered as refusal:
            self._may_refuse(step, larger, refusal)
            raise
        result = self._checked(step, result, larger.args, larger.kwargs)
        return larger.taken(answered(step, result, larger.args, larger.kwargs, self.conventions))

    def laid(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Laid:
        """The call as it is asked within the domain. Raises NotOffered where it cannot be."""
        if not self.domain:
            return Laid(args, kwargs)
        self.domain.must_read(self.layout)
        if step in FORWARD and step in MASKED:  # a backward takes the masks that its forward takes
            self.domain.must_take(step, args[MASKED[step] :], sizes_of(step, args, kwargs))
        means, alignment = self._asks_for_a_mean(step, args, kwargs), None
        if step == "attention":
            alignment = self.conventions.causal_alignment
        return laid(self.domain, step, args, kwargs, dtype=self.dtype, alignment=alignment, asks_for_a_mean=means)

    def _asks_for_a_mean(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether some query of attention or row of softmax is fully masked, and gets the mean of all by the convention."""
        if step in {"softmax", "softmax_backward"} and self.conventions.fully_masked_softmax == "mean":
            return bool((args[-1] == -np.inf).all(axis=-1).any())
        means = step == "attention" and self.conventions.fully_masked_row == "mean"
        return means and bool(fully_masked(args, kwargs, self.conventions).any())

    def _may_refuse(self, step: str, asked: Laid, refusal: NotOffered) -> None:
        """Raise ClaimBroken for a refusal within the domain that the implementation declares; its options are not part of that."""
        derived = step in getattr(self.adapter, "derived", ())  # by autograd: there may be no gradient
        sizes_asked = sizes_of(step, asked.args, asked.kwargs)
        limited = self.domain and self.domain.declared and self.domain.axes.keys() & sizes_asked.keys()
        if limited and not asked.kwargs and not derived:
            sizes = ", ".join(f"{axis} = {size}" for axis, size in sizes_asked.items())
            mask = ", a mask" if any(getattr(value, "dtype", None) == np.bool_ for value in asked.args) else ""
            raise ClaimBroken(f"{self.name}.{step} refused arguments within its domain, {sizes}{mask}: {refusal}") from None

    def _result(self, step: str, their_args: tuple[Any, ...], their_kwargs: dict[str, Any]) -> Any:
        if hasattr(self.adapter, "call"):  # lives in a child process, which converts and compares on its side
            choices = {} if self.layout is None else {"layout": self.layout}
            return self.adapter.call(step, their_args, their_kwargs, self.dtype, self.device, **choices)  # type: ignore[attr-defined]
        return self._call_here(step, their_args, their_kwargs)

    def refuses(self, step: str, *args: Any, **kwargs: Any) -> bool:
        """Whether the implementation refuses these arguments with an exception of its own instead of computing something."""
        try:
            self.attempt(step, *args, **kwargs)
        except (NotOffered, ClaimBroken):  # the latter where it declares to take them
            return True
        except ImplementationError as refusal:
            return bool(getattr(refusal, "raised", False))
        return False

    def _must_be_representable(self, step: str, arrays: list[tuple[str, Any]]) -> None:
        numbers = [(path, array) for path, array in arrays if array.dtype == np.float64]
        if self.dtype == "float64" or not numbers or self._represents(np.concatenate([array.ravel() for _, array in numbers])):
            return
        path = next(path for path, array in numbers if not self._represents(array))
        raise ValueError(f"{step}: {path} holds numbers that are not representable in {self.dtype}")

    def _represents(self, array: np.ndarray) -> bool:
        with np.errstate(invalid="ignore"):
            return np.array_equal(self.representable(array), array, equal_nan=True)

    def _call_here(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handed: list[Handed] = []
        names = positional_names(step, len(args))
        given_args = tuple(self._given(value, name, handed) for value, name in zip(args, names, strict=True))
        given_kwargs = self._given(kwargs, "", handed)
        if step == "positional_encoding":
            numpy_dtype = NUMPY_DTYPES.get(self.dtype)
            given_kwargs["dtype"] = DTYPES[self.dtype] if self.adapter.arrays == "torch" else numpy_dtype
        function = getattr(self.adapter, step)
        if step in CACHES:
            function = partial(play, function)
        functions, replaced = Functions(), []
        with ctrl_c_ends_the_run():
            try:
                numbers = [each.memory for each in handed if each.numbers]
                ask = partial(layouts.asked, self.layout, numbers, given_args, partial(function, **given_kwargs))
                answer = self._answer(step, ask)
            finally:
                replaced = functions.put_back()
        if replaced:
            raise ImplementationError(f"{self.name}.{step} replaced {', '.join(replaced)}")
        if changed := [each.path for each in handed if each.changed()]:
            raise ImplementationError(f"{self.name}.{step} changed its input {', '.join(changed)} in place")
        return accepted(answer, step, self.adapter.arrays, self.dtype, f"{self.name}.{step}")

    def _answer(self, step: str, function: Callable[[], Any]) -> dict[str, Any]:
        """What the implementation returned, described. Raises what `adapter.call` raises for a process of its own."""
        label = f"{self.name}.{step}"
        try:
            return returned.described(function(), depth=returned.DEEPEST if STEPS[step].kind == "nested" else 0)
        except (NotOffered, ImplementationError, HypothesisException):
            raise
        except NotImplementedError as refusal:
            failure: Exception = NotOffered(returned.exception(refusal)[1])
        except SystemExit as leaving:
            failure = ImplementationCrash(f"{label} {returned.exited(leaving)} during the call")
        except BaseException as error:
            where = returned.where(error, OURS_HERE)
            failure = ImplementationError(f"{label} raised {returned.raised(error)}" + (f" ({where})" if where else ""))
            failure.raised = True  # type: ignore[attr-defined]
        raise failure  # out here, since what its causes and contexts are like is the implementation's affair

    def _given(self, value: Any, path: str, handed: list[Handed]) -> Any:
        """Copies for the implementation, of its own kind of array, in the dtype and on the device under test; noted in `handed`."""
        if isinstance(value, dict):
            return {key: self._given(item, f"{path}.{key}" if path else str(key), handed) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._given(item, f"{path}[{i}]", handed) for i, item in enumerate(value))
        if not isinstance(value, np.ndarray):
            return value
        device = self.device if self.adapter.arrays == "torch" else None
        handed.append(Handed(path, np.array(value, copy=True, order="C"), self.dtype, device, layouts.of(self.layout, len(handed))))
        given = handed[-1].given
        if device is None:
            given.flags.writeable = False
        return given

    def _checked(self, step: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if STEPS[step].results:
            return self._by_name(step, result, args, kwargs)
        if STEPS[step].kind == "nested":
            return result
        expected = expected_shape(step, args, kwargs)
        if result.shape != expected:
            raise ImplementationError(f"{self.name}.{step}: expected a result of shape {expected}, got {result.shape}")
        if step == "generation":
            self._must_be_tokens(result, len(kwargs["parameters"]["target_embedding"]))
        return result.astype(np.float64) if STEPS[step].kind == "float" else result

    def _by_name(self, step: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a step that returns several, by their names."""
        names, label = STEPS[step].results, f"{self.name}.{step}"
        if isinstance(result, list) and len(result) == len(names):
            result = dict(zip(names, result, strict=True))
        if not isinstance(result, dict) or set(result) != set(names):
            got = f"a dict of {', '.join(result)}" if isinstance(result, dict) else f"{type(result).__name__}"
            got = f"{len(result)} results" if isinstance(result, list) else got
            raise ImplementationError(f"{label}: expected {', '.join(names)}, got {got}")
        for name, expected in expected_shapes(step, args, kwargs).items():
            if not isinstance(result[name], np.ndarray) or result[name].shape != expected:
                got = result[name].shape if isinstance(result[name], np.ndarray) else result[name]
                raise ImplementationError(f"{label}: expected {name} of shape {expected}, got {got}")
        return {name: result[name].astype(np.float64) for name in names}

    def _must_be_tokens(self, written: np.ndarray, vocab: int) -> None:
        if (strange := written[(written < 0) | (written >= vocab)]).size:
            raise ImplementationError(
                f"{self.name}.generation: expected tokens of the vocabulary, 0 to {vocab - 1}, got {strange[0]}"
            )


@contextmanager
def ctrl_c_ends_the_run() -> Iterator[None]:
    """While an implementation runs in this process a Ctrl-C is the user's, whatever becomes of it; what it raises itself is not."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


def _arrays(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every array in nested arguments, with a name a reader can find it by."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    else:
        return [(path, value)] if isinstance(value, (np.ndarray, torch.Tensor)) else []
    return [found for name, item in items for found in _arrays(item, name)]
