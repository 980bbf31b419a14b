"""What comes back from an implementation, a result or an exception, in plain words and numbers.

An implementation may return or raise anything. Whatever that is, what is said of it here can be sent, printed and written down:
it is short, it holds no control characters, and looking at it raises nothing. Which results are read:

* a strided `torch.Tensor` of any memory layout: not contiguous, expanded, a view of an input, conjugated or negated lazily; one
  that requires a gradient; one of a subclass that lets itself be read, and then gives what its memory held before. What counts are
  its numbers, and −0.0 is 0
* a `numpy.ndarray` likewise
* where a step returns several arrays (a cache, gradients): lists, tuples and dicts of them, None, whole numbers and strings

Everything else is named and not read: sparse, nested, quantized and meta tensors, masked arrays, what raises when it is read, a
tensor that computes then, and what no correct answer is as large as. Types are told by `type()`: `__class__` may lie, or raise.

Stands alone (standard library, numpy, torch where it is imported): the implementation's process loads this file by its path.
"""

import sys
import traceback
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

MESSAGE = 500  # characters of a message that are kept
LARGEST = 2**27  # numbers that are read: a GiB of float64
DEEPEST = 10  # lists within lists that are looked into
ACTS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of characters that act on a terminal or a page, or cannot be written


# ---- tokens ----


def printable(text: Any, most: int = MESSAGE) -> str:
    """A text on one line, its first characters, with every one that is not to be seen spelled out."""
    beginning = " ".join(str.__getitem__(text, slice(4 * most)).split())
    spelled = "".join(_spelled(character) for character in beginning[:most])
    return spelled[:most] + ("…" if len(spelled) > most or len(beginning) > most or str.__len__(text) > 4 * most else "")


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if unicodedata.category(character) in ACTS else character


def class_name(value: Any) -> str:
    """The class of `value` by its full name; a class can lie about that too, but not raise."""
    kind = type(value)
    try:
        return printable(f"{kind.__module__}.{kind.__qualname__}", 100).removeprefix("builtins.")
    except BaseException:
        return "an object whose class has no name"


def exception(error: BaseException) -> tuple[str, str]:
    """The name of an exception's class, and its message."""
    try:
        name = printable(type(error).__name__, 100)
    except BaseException:
        name = "an exception without a name"
    try:
        return name, printable(str(error))
    except BaseException as other:
        return name, f"(no message: its __str__ raised {class_name(other)})"


def raised(error: BaseException) -> str:
    """An exception as it is told: its class, and its message where it has one."""
    name, message = exception(error)
    return f"{name}: {message}" if message else name


def where(error: BaseException, ours: Collection[str]) -> str:
    """`mine.py:12 in attention`, the innermost line of the user's own, in none of the files `ours` nor of an installed package."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in ours and "importlib" not in frame.filename
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    for frame in (own or frames)[-1:]:
        return printable(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}", 200)
    return ""


def exited(leaving: SystemExit) -> str:
    """What becomes of a process in which this is raised."""
    code = leaving.code
    return f"exited with code {code & 0xFF if isinstance(code, int) else int(code is not None)}"


# ---- results ----


def described(result: Any, *, depth: int = 0) -> dict[str, Any]:
    """A result as a message.

    kind: tensor or array (of a `dtype`; `values` as float64, bool or int64, None where those cannot hold them), plain (a number or
    a string, `value`), none, nested (`items`, and the `names` of those of a dict), or other; `type`: its class, or what it is.
    Lists and dicts are looked into `depth` levels deep.
    """
    kind = type(result)
    torch = sys.modules.get("torch")
    try:
        if torch is not None and issubclass(kind, torch.Tensor):
            return _tensor(result, torch)
        if issubclass(kind, np.ndarray):
            return _array(result)
        if depth:
            return _nested(result, depth)
    except BaseException as error:
        return _unread(f"{class_name(result)}, which raised {raised(error)} when it was read")
    return _unread(class_name(result))


def _unread(what: str) -> dict[str, Any]:
    return {"kind": "other", "type": what}


def _tensor(tensor: Any, torch: Any) -> dict[str, Any]:
    if strange := _strange_tensor(tensor, torch):
        return _unread(strange)
    if type(tensor) is torch.Tensor:
        return _read(tensor, tensor)
    in_memory = _in_memory(tensor, torch)  # first: what computes when it is read may write there
    found = _read(tensor, tensor)
    if in_memory is None or in_memory["dtype"] != found["dtype"] or not _same(in_memory["values"], found["values"]):
        return _unread(f"{class_name(tensor)}, which does not hold what it gives when it is read: return a plain torch.Tensor")
    return found


def _read(tensor: Any, result: Any) -> dict[str, Any]:
    values = tensor.detach().cpu()
    values = values.double() if values.is_floating_point() else values
    return _numbers("tensor", result, str(tensor.dtype).removeprefix("torch."), values.resolve_conj().resolve_neg().numpy())


def _in_memory(tensor: Any, torch: Any) -> dict[str, Any] | None:
    """What a tensor of a subclass holds, past everything that the subclass defines; None where it has no memory of its own."""
    try:
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 (as torch's notes on extending it do)
            plain, place = torch.Tensor.as_subclass(tensor, torch.Tensor), torch.Tensor.data_ptr(tensor)
        return _read(plain, tensor) if type(plain) is torch.Tensor and plain.data_ptr() == place else None
    except BaseException:
        return None


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def _strange_tensor(tensor: Any, torch: Any) -> str:
    """What a tensor is that holds no plain array of numbers; nothing where it does."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.").removeprefix("_")
        return f"a {'sparse ' if 'sparse' in layout else ''}tensor of layout {layout}"
    if tensor.is_quantized:
        return f"a quantized tensor of dtype {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_meta:
        return "a meta tensor, which holds no numbers"
    return _too_large(tensor.shape, "tensor")


def _array(array: Any) -> dict[str, Any]:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        return _unread("a masked array with numbers missing")
    if strange := _too_large(array.shape, "array"):
        return _unread(strange)
    return _numbers("array", array, array.dtype.name, np.asarray(array))


def _too_large(shape: Any, what: str) -> str:
    return f"{'an' if what[0] == 'a' else 'a'} {what} of shape {tuple(shape)}" if np.prod(shape, dtype=float) > LARGEST else ""


def _numbers(kind: str, result: Any, dtype: str, values: np.ndarray) -> dict[str, Any]:
    wide = {"f": np.float64, "b": np.bool_, "i": np.int64, "u": np.int64}.get(values.dtype.kind)
    held = None if wide is None else values.astype(wide)
    return {"kind": kind, "type": class_name(result), "dtype": printable(dtype, 100), "values": held}


def _nested(result: Any, depth: int) -> dict[str, Any]:
    kind, name = type(result), class_name(result)
    if result is None:
        return {"kind": "none", "type": name}
    if issubclass(kind, dict):
        items = [(printable(str(key)), described(item, depth=depth - 1)) for key, item in result.items()]
        return {"kind": "nested", "type": name, "names": [key for key, _ in items], "items": [item for _, item in items]}
    if issubclass(kind, list | tuple):
        return {"kind": "nested", "type": name, "names": None, "items": [described(item, depth=depth - 1) for item in result]}
    if kind is bool or (issubclass(kind, int) and -(2**63) <= result < 2**63):
        return {"kind": "plain", "type": name, "value": result if kind is bool else int.__index__(result)}
    if issubclass(kind, str):
        return {"kind": "plain", "type": name, "value": printable(result)}
    return _unread(name)
