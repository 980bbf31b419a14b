"""The catalogue of answers: an attention that is right, but for what it gives back at some of its calls.

A row is an answer: a function of the right result, of Q and of V, that returns it or raises; the verdict it deserves; and tokens
that the verdict's message must hold. It is given at one call only, at the first, at every call, or at every call after the
hundredth of a process. `catalogue.py:ROW__WHEN` (`catalogue.py:nan__always`) is an implementation of
attention on torch tensors.

Of what looks strange, this is right: any layout in memory, a view of an input, a result that requires a gradient or is negated
lazily, −0.0 for 0, and a subclass of Tensor that lets itself be read. FAIL is for an array with wrong numbers, ERROR for an
exception and for anything but a dense array of the right dtype and shape, CRASH for what ends the process.

Stands alone (torch and the standard library): an implementation's process imports none of our packages.
"""

import asyncio
import itertools
import math
import sys
import unittest
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

WHENS: dict[str, Callable[[int], bool]] = {
    "always": lambda call: call > 0,
    "first": lambda call: call == 1,
    "once": lambda call: call == 30,  # behind the probes of conventions, which are the first to ask
    "later": lambda call: call > 100,
}
"""At which calls of a process, counted from 1, the answer is given."""


class Row(NamedTuple):
    """One answer: what it is made from and how, and what is to be said of it."""

    give: Callable[[Tensor, Tensor, Tensor], Any]
    verdict: str
    words: str = ""


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """The right result; zeros for a fully masked row."""
    scores = Q @ K.mT / math.sqrt(Q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ V


class Implementation:
    """An attention that gives a row's answer at some of its calls."""

    dtypes = ("float32",)

    def __init__(self, row: Row, strange: Callable[[int], bool]) -> None:
        self.row, self.strange, self.calls = row, strange, 0

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Any:
        """The right result, or what the row makes of it; a call at which that is the same does not count."""
        self.calls += 1
        right = attention(Q, K, V, mask)
        given = self.row.give(right, Q, V) if self.strange(self.calls) else right
        if self.row.verdict.startswith("FAIL") and given is not right and same(given, right):
            self.calls -= 1
        return given


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two arrays hold the same numbers, NaN being NaN."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def __getattr__(name: str) -> Implementation:
    """`ROW__WHEN`: a new implementation that has not been called yet."""
    row, _, when = name.partition("__")
    if row not in ROWS or when not in WHENS:
        raise AttributeError(name)
    return Implementation(ROWS[row], WHENS[when])


# ---- numbers ----


def last(number: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The right result but for its last number."""

    def give(right: Tensor, *_: Tensor) -> Tensor:
        wrong = right.clone()
        wrong.view(-1)[-1:] = number
        return wrong

    return give


FLOAT = torch.finfo(torch.float32)

NUMBERS = {
    "nan": Row(last(math.nan), "FAIL", "nan"),
    "inf": Row(last(math.inf), "FAIL", "inf"),
    "minus_inf": Row(last(-math.inf), "FAIL", "inf"),
    "nan_everywhere": Row(lambda right, *_: right * math.nan, "FAIL", "nan"),
    "inf_everywhere": Row(lambda right, *_: right * math.inf, "FAIL"),
    "largest": Row(last(FLOAT.max), "FAIL"),
    "smallest_normal": Row(last(FLOAT.tiny), "FAIL"),
    "smallest_subnormal": Row(last(FLOAT.smallest_normal * FLOAT.eps), "FAIL"),
    "subnormals_everywhere": Row(lambda right, *_: right * FLOAT.tiny / 4, "FAIL"),
    "huge_everywhere": Row(lambda right, *_: right * 1e30, "FAIL"),
    "zeros": Row(lambda right, *_: torch.zeros_like(right), "FAIL"),
    "minus_zero_for_zero": Row(lambda right, *_: torch.where(right == 0, -0.0, right), "PASS"),
}


# ---- arrays that lie strangely in memory, and right ones of strange kinds ----


def negated_lazily(right: Tensor, *_: Tensor) -> Tensor:
    """A view whose sign bit torch flips when it is read."""
    return torch.view_as_complex(torch.stack([torch.zeros_like(right), -right], dim=-1)).conj().imag


def view_of_V(right: Tensor, _: Tensor, V: Tensor) -> Tensor:
    """V itself, expanded, where all the result's rows are V's only one."""
    return V.expand(right.shape) if V.shape[-2] == 1 and torch.equal(right, V.expand(right.shape)) else right


def expanded(right: Tensor, *_: Tensor) -> Tensor:
    """With stride 0 where all rows are the same."""
    first = right[..., :1, :].expand(right.shape) if right.shape[-2] else right
    return first if torch.equal(first, right) else right


def changed_input(right: Tensor, _: Tensor, V: Tensor) -> Tensor:
    """The right result, and another V than was given."""
    V.add_(1)
    return right


class Behaves(Tensor):
    """A subclass that adds nothing."""


LAYOUTS = {
    "not_contiguous": Row(lambda right, *_: right.mT.contiguous().mT, "PASS"),
    "spread": Row(lambda right, *_: torch.stack([right, right * math.nan], dim=-1)[..., 0], "PASS"),
    "expanded": Row(expanded, "PASS"),
    "view_of_V": Row(view_of_V, "PASS"),
    "negated_lazily": Row(negated_lazily, "PASS"),
    "requires_grad": Row(lambda right, *_: right.clone().requires_grad_(), "PASS"),
    "parameter": Row(lambda right, *_: torch.nn.Parameter(right), "PASS"),
    "inference": Row(lambda right, *_: torch.inference_mode()(right.clone)(), "PASS"),  # no gradient may ever flow through it
    "subclass": Row(lambda right, *_: right.as_subclass(Behaves), "PASS"),
    "expanded_wrongly": Row(lambda right, *_: right[..., :1, :1].expand(right.shape) if right.numel() else right, "FAIL"),
    "input": Row(lambda *given: given[1], "FAIL ERROR"),
    "changed_input": Row(changed_input, "ERROR", "changed its input V in place"),
}


# ---- tensors that are not what was asked for ----


class Raises(Tensor):
    """Nothing can be done with it."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("not to be touched")


class Empty(Tensor):
    """A wrapper that holds nothing."""

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("holds nothing")


def empty(right: Tensor, *_: Tensor) -> Tensor:
    """A tensor by its class and shape alone."""
    return Tensor._make_wrapper_subclass(Empty, right.shape, dtype=right.dtype)  # noqa: SLF001 (as torch's documentation does)


def quantized(right: Tensor, *_: Tensor) -> Tensor:
    """A deprecated kind, still returned by quantized models."""
    return torch.quantize_per_tensor(right.nan_to_num(0.0), 0.1, 0, torch.quint8)


TENSORS = {
    "double": Row(lambda right, *_: right.double(), "ERROR", "expected a result of dtype float32, got float64"),
    "half": Row(lambda right, *_: right.half(), "ERROR", "expected a result of dtype float32, got float16"),
    "float8": Row(lambda right, *_: right.to(torch.float8_e4m3fn), "ERROR", "dtype float32, got float8_e4m3fn"),
    "int": Row(lambda right, *_: right.nan_to_num(0.0).long(), "ERROR", "expected a result of dtype float32, got int64"),
    "bool": Row(lambda right, *_: right > 0, "ERROR", "expected a result of dtype float32, got bool"),
    "complex": Row(lambda right, *_: right.to(torch.complex64), "ERROR", "expected a result of dtype float32, got complex64"),
    "rank_lower": Row(lambda right, *_: right.sum(0), "ERROR", "expected a result of shape"),
    "rank_higher": Row(lambda right, *_: right[None], "ERROR", "expected a result of shape"),
    "number": Row(lambda right, *_: right.sum(), "ERROR", "expected a result of shape"),
    "empty": Row(lambda right, *_: right.new_empty(0), "ERROR", "expected a result of shape"),
    "one_longer": Row(lambda right, *_: torch.nn.functional.pad(right, (0, 1)), "ERROR", "expected a result of shape"),
    "one_row_more": Row(lambda right, *_: torch.nn.functional.pad(right, (0, 0, 0, 1)), "ERROR", "expected a result of shape"),
    "enormous": Row(lambda right, *_: right.new_zeros(1).expand(2**50), "ERROR", "got a tensor of shape (1125899906842624,)"),
    "sparse": Row(lambda right, *_: right.to_sparse(), "ERROR", "got a sparse tensor of layout sparse_coo"),
    "mkldnn": Row(lambda right, *_: right.contiguous().to_mkldnn(), "ERROR", "got a tensor of layout mkldnn"),
    "meta": Row(lambda right, *_: right.to("meta"), "ERROR", "got a meta tensor, which holds no numbers"),
    "quantized": Row(quantized, "ERROR", "got a quantized tensor of dtype quint8"),
    "nested_tensor": Row(lambda right, *_: torch.nested.nested_tensor([right]), "ERROR", "got a nested tensor"),
    "subclass_that_raises": Row(lambda right, *_: right.as_subclass(Raises), "ERROR", "Raises, which raised TypeError: not to be"),
    "subclass_without_numbers": Row(empty, "ERROR", "Empty, which raised RuntimeError: holds nothing"),
}


# ---- objects that are no tensors ----


class Untouchable:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(f"no {name}")

    def refuses(self, *_: Any) -> NoReturn:
        """Stands for all that Python itself may ask of an object."""
        raise RuntimeError("not to be touched")

    __repr__ = __str__ = __len__ = __iter__ = __bool__ = __eq__ = __hash__ = __array__ = __index__ = __float__ = refuses


def exits(_: object) -> NoReturn:
    """Ends the process of whoever looks."""
    raise SystemExit("looked at")


Liar = type("Liar", (), {"__class__": Tensor})
Exits = type("Exits", (), {"__class__": property(exits)})


class Nameless(type):
    """The class of a class that does not say what it is called."""

    def __getattribute__(cls, name: str) -> NoReturn:
        raise RuntimeError(f"no {name}")


def itself() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


def no_tensor(give: Callable[..., Any], what: str) -> Row:
    """A row of something else, which is called `what`."""
    return Row(give, "ERROR", f"expected a torch.Tensor of dtype float32, got {what}")


OBJECTS = {
    "none": no_tensor(lambda *_: None, "NoneType"),
    "list": no_tensor(lambda right, *_: right.tolist(), "list"),
    "tuple": no_tensor(lambda right, *_: (right, None), "tuple"),
    "dict": no_tensor(lambda right, *_: {"output": right}, "dict"),
    "array": no_tensor(lambda right, *_: right.detach().numpy(), "numpy.ndarray"),
    "float": no_tensor(lambda right, *_: float(right.sum()), "float"),
    "string": no_tensor(lambda *_: "[[1.0]]", "str"),
    "bytes": no_tensor(lambda right, *_: right.numpy().tobytes(), "bytes"),
    "class": no_tensor(lambda *_: Tensor, ""),
    "module": no_tensor(lambda *_: torch, "module"),
    "function": no_tensor(lambda *_: attention, "function"),
    "generator": no_tensor(lambda *_: (0 for _ in itertools.count()), "generator"),
    "list_of_itself": no_tensor(lambda *_: itself(), "list"),
    "untouchable": no_tensor(lambda *_: Untouchable(), "catalogue.Untouchable"),
    "liar": no_tensor(lambda *_: Liar(), "catalogue.Liar"),
    "exits_when_looked_at": no_tensor(lambda *_: Exits(), "catalogue.Exits"),
    "nameless": no_tensor(lambda *_: Nameless("x", (), {})(), "an object whose class has no name"),
    "named_strangely": no_tensor(lambda *_: type("\x1b[2J<b>[red]", (), {})(), r"catalogue.\x1b[2J<b>[red]"),
}


# ---- exceptions ----


class OfItsOwn(BaseException):
    """No Exception, so that few handlers catch it."""


class NoMessage(Exception):
    """Ends the process of whoever prints it."""

    def __str__(self) -> NoReturn:
        raise SystemExit("printed")

    __repr__ = __str__


def raises(error: Callable[[], BaseException], words: str, verdict: str = "ERROR") -> Row:
    """A row that raises a new exception of that kind."""

    def give(*_: Tensor) -> NoReturn:
        raise error()

    return Row(give, verdict, words)


def says(message: str, words: str) -> Row:
    """A row that raises a ValueError with this message."""
    return raises(lambda: ValueError(message), f"raised ValueError: {words}")


def recursion(*_: Tensor) -> Any:
    """Calls itself without end."""
    return recursion(*_)


def caused(*_: Tensor) -> NoReturn:
    """One after ten thousand others, each the cause of the next."""
    error = ValueError("the first")
    for _number in range(10_000):
        later = ValueError("the next")
        later.__cause__ = later.__context__ = error
        error = later
    raise error


def its_own_cause(*_: Tensor) -> NoReturn:
    """A circle of two."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    one.__context__, other.__context__ = other, one
    raise one


def with_notes(*_: Tensor) -> NoReturn:
    """With notes that are none, and a megabyte of one."""
    error = ValueError("noted")
    vars(error)["__notes__"] = ["\x1b[2J" * 10**6, 5]
    raise error


def printed(*_: Tensor) -> NoReturn:
    """Prints what no terminal should see, and exits."""
    sys.stdout.buffer.write(b"\x1b[2J\x00\xff\xfe<script>\n")
    sys.stdout.flush()
    raise SystemExit(3)


EXCEPTIONS = {
    "value_error": says("no", "no"),
    "base_exception": raises(OfItsOwn, "raised OfItsOwn"),
    "keyboard_interrupt": raises(KeyboardInterrupt, "raised KeyboardInterrupt"),
    "system_exit": raises(lambda: SystemExit("no licence"), "exited with code 1", "CRASH"),
    "system_exit_0": raises(SystemExit, "exited with code 0", "CRASH"),
    "generator_exit": raises(GeneratorExit, "raised GeneratorExit"),
    "stop_iteration": raises(StopIteration, "raised StopIteration"),
    "stop_async_iteration": raises(StopAsyncIteration, "raised StopAsyncIteration"),
    "cancelled": raises(asyncio.CancelledError, "raised CancelledError"),
    "recursion_error": Row(recursion, "ERROR", "raised RecursionError"),
    "memory_error": Row(lambda *_: bytearray(2**62), "ERROR", "raised MemoryError"),
    "out_of_memory": raises(lambda: torch.OutOfMemoryError("CUDA out of memory"), "raised OutOfMemoryError: CUDA out of memory"),
    "torch_error": Row(lambda right, *_: right @ right.new_ones(12345, 1), "ERROR", "raised RuntimeError: "),
    "assertion": raises(lambda: AssertionError("n == m"), "raised AssertionError: n == m"),
    "timeout": raises(TimeoutError, "raised TimeoutError"),
    "end_of_file": raises(EOFError, "raised EOFError"),
    "broken_pipe": raises(BrokenPipeError, "raised BrokenPipeError"),
    "os_error": raises(lambda: OSError(28, "No space left on device", "/x"), "raised OSError: [Errno 28] No space left"),
    "import_error": raises(lambda: ImportError("no kernel"), "raised ImportError: no kernel"),
    "skip": raises(lambda: unittest.SkipTest("not today"), "raised SkipTest: not today"),
    "warning": raises(lambda: UserWarning("deprecated"), "raised UserWarning: deprecated"),
    "undecodable": raises(lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "raised UnicodeDecodeError: "),
    "group": raises(lambda: ExceptionGroup("many", [ValueError("1"), TypeError("2")]), "raised ExceptionGroup: many (2 sub-"),
    "base_group": raises(lambda: BaseExceptionGroup("many", [KeyboardInterrupt()]), "raised BaseExceptionGroup: many"),
    "no_message": raises(NoMessage, "raised NoMessage: (no message: its __str__ raised SystemExit)"),
    "named_strangely_too": raises(lambda: type("\x1b[2J<b>", (Exception,), {})("x"), r"raised \x1b[2J<b>: x"),
    "caused": Row(caused, "ERROR", "raised ValueError: the next"),
    "its_own_cause": Row(its_own_cause, "ERROR", "raised ValueError: one"),
    "notes": Row(with_notes, "ERROR", "raised ValueError: noted"),
    "megabytes": says("so " * 2**20, "so so so"),
    "many_lines": says("one\ntwo\n\n" * 1000, "one two one two"),
    "control": says("\x1b[2J\x1b]0;title\x07 \x00 \x08 \x9b31m \x7f", r"\x1b[2J\x1b]0;title\x07 \x00 \x08 \x9b31m \x7f"),
    "directions": says("\u202eright to left\u2066", r"\u202eright to left\u2066"),
    "surrogates": says("\ud800 \udcff", r"\ud800 \udcff"),
    "not_utf8": says(b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\udce9"),
    "html": says("<script>alert(1)</script><b>&amp;", "<script>alert(1)</script><b>&amp;"),
    "rich_markup": says("[bold red]x[/] [/nonsense] [link=file:///etc]", "[bold red]x[/] [/nonsense]"),
    "markdown": says("| a | **b** | `c` ``` # d", "| a | **b** | `c` ``` # d"),
    "template": says("{{ 7 * 7 }} {% raise %} %s {0}", "{{ 7 * 7 }} {% raise %} %s {0}"),
    "our_words": says(
        "properties.run.run_folder.Unwritable: no room; ERROR: no; INTERNALERROR> x",
        "properties.run.run_folder.Unwritable: no room",
    ),
    "our_words_alone": says(
        "\nproperties.run.run_folder.Unwritable: no room\nERROR: usage: x\n", "properties.run.run_folder.Unwritable: no room"
    ),
    "exits_after_printing": Row(printed, "CRASH", r"exited with code 3 during the call; its last output: \x1b[2J\x00"),
}

ROWS: dict[str, Row] = {**NUMBERS, **LAYOUTS, **TENSORS, **OBJECTS, **EXCEPTIONS}
