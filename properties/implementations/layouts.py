"""The memory an array is handed over in: transposed, strided, offset, expanded or backwards, NaN in every gap; or used before.

And what an implementation was asked just before, where that should make no difference.

Stands alone (standard library, numpy, torch where it is imported): an implementation's process loads this file by its path.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np


class Handed:
    """One array handed to an implementation, with the memory it lies in and the bits that memory held."""

    def __init__(self, path: str, values: np.ndarray, dtype: str, device: str | None, layout: str | None) -> None:
        self.path, self.numbers = path, values.dtype == np.float64
        array = _converted(values, dtype, device)
        if layout in LAYOUTS and values.size:
            self.memory, self.given = LAYOUTS[layout](array, values)
        else:
            self.memory, self.given = array, array[...]
        self._bytes = _bytes(self.memory)
        self.before = self._state()

    def _state(self) -> tuple[Any, ...]:
        return _geometry(self.given), self._bytes().tobytes()

    def changed(self) -> bool:
        """Whether any bit of the memory (gaps included) or the shape, strides or place of the array is another."""
        return self._state() != self.before


def _converted(values: np.ndarray, dtype: str, device: str | None) -> Any:
    """float64 becomes `dtype` (exact: the parent sends numbers `dtype` can hold); bool and int64 stay. device None: numpy."""
    if device is None:
        return values.astype(dtype) if values.dtype == np.float64 else values
    torch = sys.modules["torch"]
    tensor = torch.from_numpy(values)
    return tensor.to(device, getattr(torch, dtype) if values.dtype == np.float64 else tensor.dtype)


def _full_of_nan(shape: tuple[int, ...], like: Any) -> Any:
    """Fresh memory; what an implementation reads from its gaps shows: NaN; of truth values True, of whole numbers −1."""
    kind = str(like.dtype).removeprefix("torch.")
    gap = True if kind == "bool" else -1 if kind == "int64" else np.nan
    return np.full(shape, gap, like.dtype) if isinstance(like, np.ndarray) else like.new_full(shape, gap)


def _filled(memory: Any, view: Any, array: Any) -> tuple[Any, Any]:
    view[...] = array
    return memory, view


def _transposed(array: Any, _: np.ndarray) -> tuple[Any, Any]:
    if array.ndim < 2:
        return array, array
    memory = _full_of_nan((*array.shape[:-2], array.shape[-1], array.shape[-2]), array)
    return _filled(memory, memory.swapaxes(-1, -2), array)


def _strided(array: Any, _: np.ndarray) -> tuple[Any, Any]:
    if not array.ndim:
        return array, array
    memory = _full_of_nan((*array.shape[:-1], 2 * array.shape[-1]), array)
    return _filled(memory, memory[..., ::2], array)


def _offset(array: Any, values: np.ndarray) -> tuple[Any, Any]:
    memory = _full_of_nan((values.size + 5,), array)
    return _filled(memory, memory[3:-2].reshape(array.shape), array)


def _expanded(array: Any, values: np.ndarray) -> tuple[Any, Any]:
    """Stride 0 along every axis on which the values do not differ in a single bit."""
    bits = values.view(np.int64) if values.dtype == np.float64 else values
    constant = [bits.shape[axis] > 1 and (bits == bits.take([0], axis)).all() for axis in range(bits.ndim)]
    if not any(constant):
        return array, array
    first = array[tuple(slice(0, 1) if same else slice(None) for same in constant)]
    memory = first.copy() if isinstance(array, np.ndarray) else first.clone()
    return memory, np.broadcast_to(memory, array.shape) if isinstance(array, np.ndarray) else memory.expand(array.shape)


def _backwards(array: Any, _: np.ndarray) -> tuple[Any, Any]:
    """Negative strides along every axis; torch has none."""
    if not isinstance(array, np.ndarray):
        return array, array
    everywhere = (slice(None, None, -1),) * array.ndim
    memory = np.ascontiguousarray(array[everywhere])
    return memory, memory[everywhere]


def with_zeros(numbers: list[Any], ask: Callable[[], Any]) -> None:
    """Ask once while these arrays hold zeros, then put their numbers back into the same memory; the answer is nobody's."""
    kept = [each * 1 for each in numbers]
    for each in numbers:
        each[...] = 0
    with suppress(BaseException):
        ask()
    for each, was in zip(numbers, kept, strict=True):
        each[...] = was


def asked(layout: str | None, numbers: list[Any], args: list[Any] | tuple[Any, ...], ask: Callable[..., Any]) -> Any:
    """What `ask(*args)` answers, with the other questions that go with a layout that is none; `numbers` hold what is refilled."""
    if layout == REFILLED:
        with_zeros(numbers, lambda: ask(*args))
    if layout == ASKED_BEFORE:
        first_for_others(args, ask)
    answer = ask(*args)
    if layout == REFILLED:
        with_zeros(numbers, lambda: ask(*args))
    return answer


REFILLED = "refilled"
"""Not a layout: the step is asked before and after about the same arrays, while they hold zeros (`with_zeros`).

What is kept by address answers the first question twice; an answer in memory that the next one is written to is lost.
"""


def first_for_others(args: list[Any] | tuple[Any, ...], ask: Callable[..., Any]) -> None:
    """Ask once for other arguments of the same shapes: token 0 everywhere, nothing masked, rows with the opposite sign."""
    with suppress(BaseException):
        ask(*map(_another, args))


def _another(value: Any) -> Any:
    kind = str(getattr(value, "dtype", ""))
    if "bool" in kind:
        return value | True
    return value * 0 if "int" in kind else -value if "float" in kind else value


ASKED_BEFORE = "asked before"
"""Not a layout: the step was asked before, of the same parameters, about other tokens, masks and rows (`first_for_others`)."""

CONTIGUOUS, BESIDE = "contiguous", "+"

LAYOUTS = {"transposed": _transposed, "strided": _strided, "offset": _offset, "expanded": _expanded, "backwards": _backwards}


def of(layout: str | None, place: int) -> str | None:
    """The layout of the array that is handed over as number `place`: of several, joined by +, each has the next, over and over."""
    names = (layout or CONTIGUOUS).split(BESIDE)
    return names[place % len(names)]


def _bytes(memory: Any) -> Callable[[], np.ndarray]:
    """A function that gives what the memory holds now; of memory on the CPU it is the same view each time."""
    if isinstance(memory, np.ndarray):
        return lambda: memory
    held = memory.detach()
    if held.device.type != "cpu" or not held.is_contiguous():
        return lambda: _flat(held.cpu().contiguous())
    view = _flat(held)
    return lambda: view


def _flat(tensor: Any) -> np.ndarray:
    return tensor.reshape(-1).view(sys.modules["torch"].uint8).numpy()


def _geometry(array: Any) -> tuple[Any, ...]:
    if isinstance(array, np.ndarray):
        return array.shape, array.strides, array.__array_interface__["data"][0]
    return tuple(array.shape), array.stride(), array.data_ptr()
