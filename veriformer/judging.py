"""What `veriformer.rounding` asks, answered: the exact result, its tolerances, or what is off in a given one.

Run as `python -m veriformer.judging` it answers questions from stdin on stdout (`isolation.wire`), until there are no more.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from veriformer.packages import mistaken, prefer_ours

if __name__ == "__main__":
    prefer_ours()

import numpy as np

from properties.conventions.declarations import KINDS, Declarations
from properties.error_budget.budgets import COPIES, ESCALATE_BELOW, Budget, budget, category
from properties.implementations import conventions as convention
from properties.implementations.autograd import FORWARD
from properties.implementations.contract import Contract, declared
from properties.implementations.formats import FORMATS
from properties.implementations.oracle import ORACLES, oracle
from properties.steps import STEPS, parameters
from reports.records import Verdict
from veriformer.isolation import wire

BUDGETED = tuple(name for name, step in STEPS.items() if step.kind == "float" and name not in COPIES)
RENAMED = {"accumulate": "accumulation"}  # what a user would call it
MASKS = ("mask", "memory_mask", "source_mask", "target_mask")
ELEMENTS = ("component", "bound", "category")  # kinds of a score that are about one element


@dataclass(frozen=True)
class Question:
    """A step with the oracle's arguments, what it is held to, and the conventions of whoever computed it."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dtype: str
    contracts: tuple[Contract, ...]
    conventions: convention.Conventions
    of_contract: Mapping[str, Any]

    @property
    def budget(self) -> Budget:
        """Of the question to which a correct answer is the oracle's."""
        args, kwargs = convention.posed(self.step, self.args, self.kwargs, self.conventions)
        return budget(self.step, *args, contract=self.contracts, **kwargs)

    @property
    def held_to(self) -> str:
        """The contract in words."""
        inside = self.contracts[0].accumulation
        if self.of_contract:
            return ", ".join(f"{name}={value}" for name, value in self.of_contract.items()) + f" (in {inside} inside a step)"
        return f"what eager or fused code may be off by, in {inside} inside a step; none declared"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What `request["what"]` asks. Raises ValueError or TypeError, in one line, for what the user asked wrongly."""
    what = request["what"]
    question = _question(request, ORACLES if what == "oracle" else BUDGETED)
    try:
        match what:
            case "oracle":
                args, kwargs = convention.posed(question.step, question.args, question.kwargs, question.conventions)
                return {"array": oracle(question.step, *args, **kwargs)}
            case "tolerance":
                return {"array": question.budget.tolerance()}
        allowed = question.budget
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise type(error if isinstance(error, ValueError | TypeError) else ValueError())(_one_line(question, error)) from None
    return _judged(question, allowed, request["got"], request["got_dtype"])


def _one_line(question: Question, error: Exception) -> str:
    said = " ".join(str(error).split())
    shapes = ", ".join(str(np.shape(value)) for value in question.args if isinstance(value, np.ndarray))
    return f"{question.step}({STEPS[question.step].arguments}): {type(error).__name__}: {said}; got shapes {shapes or 'none'}"


# Judging --------------------------------------------------------------------------------------------------------------


def _judged(question: Question, allowed: Budget, got: np.ndarray, got_dtype: str) -> dict[str, Any]:
    """The fields of a `veriformer.rounding.Rounding`."""
    found: dict[str, Any] = {"step": question.step, "dtype": question.dtype, "held_to": question.held_to}
    if not _holds(got_dtype, question.dtype):
        return found | {"kind": "dtype", "expected": question.dtype, "got": got_dtype}
    if got.shape != allowed.exact.shape:
        return found | {"kind": "shape", "expected": str(allowed.exact.shape), "got": str(got.shape)}
    raw, got = got, convention.answered(question.step, got, question.args, question.kwargs, question.conventions)
    score = allowed.score(got)
    found |= {
        "index": list(score.index),
        "expected": score.expected,
        "got": score.got,
        "budget_used": score.budget_used,
        "sigmas": score.worst,
        "elements": score.elements,
        "where": score.kind,
    }
    match score.verdict:
        case Verdict.FAIL:
            fair = allowed.tolerance(escalate=score.worst <= ESCALATE_BELOW)
            off = ~allowed.undecidable & (category(got) != allowed.categories)
            with np.errstate(invalid="ignore"):
                off |= np.abs(got - allowed.exact) > fair
            kind = "category" if score.kind == "category" else "element" if score.kind in ELEMENTS else "sum"
            found |= {"kind": kind, "off": int(off.sum()), "tolerance": float(fair[score.index])}
            if np.isnan(score.got) and not np.isnan(raw[score.index]):  # which NaN by convention it should have been
                found |= {"expected": np.nan, "got": float(raw[score.index])}
            return found | {"hint": _hint(question, score.index)}
        case Verdict.VACUOUS:
            return found | {"kind": "undecidable", "off": score.undecidable}
    return found


def _holds(wider: str, dtype: str) -> bool:
    """Whether numbers of `dtype` may come in an array of this one: of itself, or of one that represents them all."""
    if wider not in FORMATS:
        return False
    one, other = FORMATS[wider], FORMATS[dtype]
    return one.bits >= other.bits and one.smallest <= other.smallest and not (wider == "float16" and dtype == "bfloat16")


def _hint(question: Question, index: tuple[int, ...]) -> str:
    """For a row that no key may be attended to, which is a convention's."""
    if question.step != "attention" or len(question.args) < 4:
        return ""
    Q, K, _, mask = question.args
    if np.broadcast_to(mask, (*Q.shape[:3], K.shape[2]))[index[:3]].any():
        return ""
    choices = ", ".join(convention.CHOICES["fully_masked_row"])
    return f"this query is fully masked: conventions={{'fully_masked_row': …}} says what it gives, one of {choices}"


# Reading the question -------------------------------------------------------------------------------------------------


def _question(request: dict[str, Any], steps: Any) -> Question:
    step, dtype = request["step"], request["dtype"]
    if step not in STEPS:
        raise ValueError(f"step: no {step!r}{_nearest(str(step), STEPS)}; expected one of {', '.join(steps)}")
    if step not in steps:
        raise ValueError(f"step: expected one that computes with real numbers ({', '.join(steps)}), got {step!r}")
    known = [name for name in parameters(step) if (step, name) != ("positional_encoding", "dtype")]
    given, of_contract = _options(step, request["options"], known)
    of_contract |= {str(RENAMED.get(name, name)): value for name, value in request["contract"].items()}
    said = Declarations.read(request["conventions"], of_contract, request["like"])
    follows = _resolved(step, said.conventions)
    contracts = declared(said, dtype)
    if follows.subnormals == "flushed":
        contracts = tuple(replace(contract, flush_to_zero=True) for contract in contracts)
    given = _bound(step, request["args"], given, known)
    for name in MASKS:
        if given.get(name) is not None:
            given[name] = _mask(step, name, given[name], follows.mask_polarity, said.conventions)
    _must_fit(step, given)
    for path, array in _arrays(given):
        _must_be_representable(step, path, array, dtype)
    before = _positional(step)
    args = [given.pop(name, None) for name in before]
    while args and args[-1] is None:
        args.pop()
    return Question(step, tuple(args), given, dtype, contracts, follows, of_contract)


def _options(step: str, options: dict[str, Any], known: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is an argument of the step, and what of a contract."""
    given: dict[str, Any] = {}
    of_contract: dict[str, Any] = {}
    for name, value in options.items():
        if name in known:
            given[name] = value
        elif name in KINDS:
            of_contract[name] = value
        else:
            names = [*known, *RENAMED, *KINDS, "dtype", "conventions", "like"]
            raise TypeError(f"{step}: no argument {name!r}{_nearest(name, names)}; expected some of {', '.join(names)}")
    return given, of_contract


def _nearest(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _resolved(step: str, said: Mapping[str, str | None]) -> convention.Conventions:
    """What is said, and the oracle's own for the rest. Raises ValueError for what the oracle has no answer to."""
    follows = replace(convention.OURS, **{name: choice for name, choice in said.items() if choice is not None})
    for name, steps in convention.BURIED.items():
        if step in steps and getattr(follows, name) != getattr(convention.OURS, name):
            raise ValueError(f"conventions: {step} with {name}={getattr(follows, name)}: the oracle has no such {step}")
    return follows


def _positional(step: str) -> list[str]:
    """The names before the * of the signature."""
    before = STEPS[step].arguments.partition("*")[0]
    return [name for name in parameters(step) if re.search(rf"\b{name}\b", before)]


def _bound(step: str, args: list[Any], named: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """All arguments by name. Raises TypeError for too many, for one given twice, and for one that is missing."""
    names = _positional(step)
    if len(args) > len(names):
        raise TypeError(f"{step}({STEPS[step].arguments}): expected at most {len(names)} inputs, got {len(args)}")
    given = dict(zip(names, args, strict=False))
    if twice := sorted(given.keys() & named.keys()):
        raise TypeError(f"{step}: {twice[0]} is given twice, by position and by name")
    given |= named
    optional = [name for name in known if re.search(rf"\b{name}( \([^)]*\))?=", STEPS[step].arguments)]
    needed = [name for name in known if given.get(name) is None and name not in optional]
    if needed and not (step in convention.LAYERS and all(name.startswith("b_") for name in needed)):
        raise TypeError(f"{step}({STEPS[step].arguments}): expected {', '.join(needed)} too")
    return given


def _mask(step: str, name: str, mask: Any, polarity: str | None, said: Mapping[str, str | None]) -> np.ndarray:
    """A mask in the oracle's polarity, True = attend. Raises ValueError for one that is not of the polarity that was declared."""
    mask = np.asarray(mask)
    if polarity in ("true_attends", "true_masks") and mask.dtype != bool:
        other = "additive" if mask.dtype.kind == "f" else "integer"
        was = "" if "mask_polarity" in said else f"; conventions={{'mask_polarity': {other!r}}} says that it is meant"
        raise ValueError(f"{step}: {name}: expected truth values, {polarity.replace('_', ' ')}, got numbers{was}")
    match polarity:
        case "true_masks":
            return ~mask
        case "integer":
            return mask != 0
        case "additive":
            if not np.isin(mask, (0.0, -np.inf)).all():
                raise ValueError(f"{step}: {name}: expected an additive mask of 0 and -inf, got other numbers")
            return mask == 0
        case _:
            return mask


def _must_fit(step: str, given: Mapping[str, Any]) -> None:
    """Arrays have the axes that the signature gives them. Raises ValueError naming argument, axes and shape."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, text in re.findall(r"(\w+) \(([^)]*)\)", STEPS[step].arguments):
        value, axes = given.get(name), [axis.strip() for axis in text.split(",")]
        if value is None:
            continue
        if step == "attention" and name in ("K", "V"):  # of as many heads, or of fewer, each read by a group of Q's
            axes[1] = "g"
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{step}: {name}: expected an array ({text}), got {type(value).__name__}")
        if step in FORWARD and value.dtype.kind != "f":
            raise TypeError(f"{step}: {name}: expected floating-point numbers, as gradients are of and to, got {value.dtype}")
        if "..." in axes:
            axes = axes[1:]
            fits = value.ndim >= len(axes)
        else:
            fits = value.ndim == len(axes)
        if not fits:
            raise ValueError(f"{step}: {name}: expected an array ({text}), got shape {value.shape}")
        for axis, size in zip(axes, value.shape[value.ndim - len(axes) :], strict=True):
            other, of = sizes.setdefault(axis, (size, name))
            if other != size:
                raise ValueError(f"{step}: {name}: expected {axis} = {other} as in {of}, got {size} in shape {value.shape}")
    if step == "attention" and sizes["h"][0] % max(sizes["g"][0], 1):
        raise ValueError(f"{step}: K, V: expected as many heads as Q, or a divisor of {sizes['h'][0]}, got {sizes['g'][0]}")
    if step == "attention" and given.get("mask") is not None:
        full = (*given["Q"].shape[:3], given["K"].shape[2])
        if not _broadcasts(given["mask"].shape, full):
            raise ValueError(f"attention: mask: expected a shape that broadcasts to {full}, got {given['mask'].shape}")


def _broadcasts(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, full) == full
    except ValueError:
        return False


def _arrays(value: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array of nested arguments, with a name to find it by."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _arrays(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _arrays(item, f"{path}[{i}]")
    elif isinstance(value, np.ndarray):
        yield path, value


def _must_be_representable(step: str, path: str, array: np.ndarray, dtype: str) -> None:
    if array.dtype != np.float64 or dtype == "float64":
        return
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (FORMATS[dtype].to_nearest(array) != array) & ~np.isnan(array)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{step}: {path} holds numbers that {dtype} cannot represent ({int(wrong.sum())} of {array.size}, the first is "
            f"{float(array[index])!r} at {index}): round it to {dtype} before it is used, so that both start from the same numbers"
        )


# A process that answers -----------------------------------------------------------------------------------------------


def main() -> None:
    """Answer until stdin ends. What is printed meanwhile goes to stderr."""
    if mistake := mistaken():
        raise SystemExit(mistake)
    with os.fdopen(os.dup(0), "rb") as questions, os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)

        def exactly(count: int) -> bytearray:
            data = questions.read(count)
            if len(data) < count:
                raise EOFError
            return bytearray(data)

        while True:
            try:
                request = wire.receive(exactly)
            except EOFError:
                return
            try:
                told = answer(request)
            except Exception as error:
                told = {"raised": type(error).__name__, "message": str(error)}
            answers.write(wire.encode(told))
            answers.flush()


if __name__ == "__main__":
    sys.exit(main())
