"""Which arguments an implementation takes: its domain, declared in one value that reads like documentation, or found by probes.

    domain = {"d_k": (16, 32, 64, 128), "d_v": "d_k", "n": "multiple of 128", "m": "n", "mask": None, "layout": "contiguous"}

Of an axis: a size, several, a `range`, `"multiple of k"`, `"1 to 512"`, or another axis whose size it has. `mask`: None, or the
shapes it may have (`"b 1 n m"`). `layout`: how arrays may lie in memory. What is not named is not limited.

A question that is smaller is laid into the smallest shape that is taken (`laid`, `laid_rows`): so a kernel that takes 128 × 64
alone meets the same questions as one that takes 1 × 1. What cannot be laid is drawn inside the domain (`drawn_inside`), or counts
as refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from properties.implementations.layouts import ASKED_BEFORE, BESIDE, CONTIGUOUS, LAYOUTS, REFILLED
from properties.steps import STEPS
from properties.verdicts import NotOffered

LARGEST = 8192  # size of an axis that is ever asked for
FEWEST = 2  # sizes that a limited domain must leave, or a shape says nothing of any other
MASK_AXES = ("b h n m", "b 1 n m", "1 h n m", "1 1 n m", "b h 1 m", "b 1 1 m", "1 h 1 m", "1 1 1 m", "n m", "1 m", "m", "h n m")
"""Shapes of a mask that are told apart; each axis is whole, or 1."""

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Domain:
    """What an implementation takes.

    axes     the sizes of each limited axis, or the name of the axis it equals
    masks    the shapes a mask may have, of MASK_AXES; empty: it takes no mask; None: all
    layouts  how arrays may lie in memory; None: in every way
    declared whether the implementation says so itself, or it was found out
    """

    axes: Mapping[str, tuple[int, ...] | str] = field(default_factory=dict)
    masks: frozenset[str] | None = None
    layouts: frozenset[str] | None = None
    declared: bool = True
    steps: frozenset[str] | None = None  # whose sizes are limited; None: of all
    said: Mapping[str, str] = field(default_factory=dict, compare=False)  # an axis' sizes, in the words they were declared in

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.axes) or self.masks is not None or self.layouts is not None

    def __str__(self) -> str:
        parts = [f'"{axis}": {self._in_words(axis)}' for axis in self.axes]
        if self.masks is not None:
            shapes = [shape for shape in MASK_AXES if shape in self.masks]
            parts.append(f'"mask": {tuple(shapes) if shapes else None}')
        if self.layouts is not None:
            others = tuple(sorted(self.layouts - {CONTIGUOUS}))
            parts.append(f'"layout": {(CONTIGUOUS, *others) if others else repr(CONTIGUOUS)}'.replace("'", '"'))
        return "{" + ", ".join(parts).replace("'", '"') + "}"

    def _in_words(self, axis: str) -> str:
        rule = self.axes[axis]
        return repr(rule) if isinstance(rule, str) else self.said.get(axis, repr(rule))

    def sizes(self, axis: str) -> tuple[int, ...] | None:
        """The sizes that an axis may have, up to LARGEST; None: any."""
        rule = self.axes.get(axis)
        return self.sizes(rule) if isinstance(rule, str) else rule

    def root(self, axis: str) -> str:
        """The axis whose size it has, in the end; itself where it may have its own."""
        rule = self.axes.get(axis)
        return self.root(rule) if isinstance(rule, str) else axis

    def why_not(self, step: str, sizes: Sizes) -> str:
        """What is outside of it, in a few words; "" where nothing is."""
        if self.steps is not None and step not in self.steps:
            return ""
        for axis, size in sizes.items():
            allowed = self.sizes(axis)
            if allowed is not None and size not in allowed:
                return f"{step} of {axis} = {size}, which is not {self._in_words(self.root(axis))}"
            other = self.axes.get(axis)
            if isinstance(other, str) and sizes.get(other, size) != size:
                return f"{step} of {axis} = {size} and {other} = {sizes[other]}, which are to be equal"
        return ""

    def takes_mask(self, shape: Sequence[int], sizes: Sizes) -> bool:
        """Whether a mask may have this shape."""
        return self.masks is None or any(matches(pattern, shape, sizes) for pattern in self.masks)

    def must_read(self, layout: str | None) -> None:
        """Raise NotOffered for arrays that lie in memory as it does not take them."""
        if self.layouts is None or layout in (None, REFILLED, ASKED_BEFORE):
            return
        if lacking := sorted(set(layout.split(BESIDE)) - self.layouts - {CONTIGUOUS}):
            raise NotOffered(f"arrays that lie in memory {', '.join(lacking)}: outside of its domain")

    def must_take(self, step: str, masks: Iterable[np.ndarray | None], sizes: Sizes) -> None:
        """Raise NotOffered for a mask that it does not take."""
        for mask in masks:
            if mask is not None and not self.takes_mask(mask.shape, sizes):
                shape = "×".join(map(str, mask.shape)) or "()"
                raise NotOffered(f"{step} with a mask{f' of shape {shape}' if self.masks else ''}: outside of its domain")

    def features(self, axis: str) -> tuple[int, ...] | None:
        """How many features a question may have that is laid into one of the sizes, exactly: D, D/4, D/16 …, the least first."""
        allowed = self.sizes(axis)
        if allowed is None:
            return None
        return tuple(sorted({size // 4**k for size in allowed if size for k in range(6) if size % 4**k == 0}))


# ---- what is declared ----


def read(said: Any, steps: Iterable[str] = STEPS, *, declared: bool = True) -> Domain:
    """The domain that a mapping or a command line declares. Raises ValueError, in one line, for one that makes no sense."""
    if isinstance(said, str):
        said = _items(said)
    if not isinstance(said, Mapping):
        raise ValueError(f"domain: expected a mapping of axes to sizes, got {said!r}")  # noqa: TRY004 (as all that is declared)
    known = known_axes(steps)
    axes: dict[str, tuple[int, ...] | str] = {}
    words: dict[str, str] = {}
    for axis, rule in said.items():
        if axis in ("mask", "layout"):
            continue
        if axis not in known:
            raise ValueError(f"domain: no axis {axis!r}; expected some of {', '.join([*known, 'mask', 'layout'])}")
        axes[axis], words[axis] = _rule(axis, rule, known)
    domain = Domain(axes, _masks(said), _layouts(said), declared, said=words)
    _must_make_sense(domain)
    return domain


def _items(said: str) -> dict[str, str]:
    """As a command line has it: `d_k=16|32|64,d_v=d_k,n=multiple of 128,mask=none`."""
    items = {}
    for item in filter(None, map(str.strip, said.split(","))):
        axis, equals, rule = map(str.strip, item.partition("="))
        if not (axis and equals and rule):
            raise ValueError(f"domain: expected axis=sizes, got {item!r}")
        items[axis] = rule
    return items


def known_axes(steps: Iterable[str]) -> list[str]:
    """The axes that the signatures of these steps name."""
    return list(dict.fromkeys(axis for step in steps for axes in signature_axes(step).values() for axis in axes))


def _rule(axis: str, rule: Any, known: Sequence[str]) -> tuple[tuple[int, ...] | str, str]:
    if isinstance(rule, str):
        if multiple := re.fullmatch(r"multiple of (\d+)", rule):
            step = int(multiple[1])
            return tuple(range(step, LARGEST + 1, step)) if step else (), repr(rule)
        if between := re.fullmatch(r"(\d+) to (\d+)", rule):
            return tuple(range(int(between[1]), min(int(between[2]), LARGEST) + 1)), repr(rule)
        if re.fullmatch(r"\d+(\|\d+)*", rule):
            return _rule(axis, tuple(map(int, rule.split("|"))), known)
        if rule in known and rule != axis:
            return rule, repr(rule)
    if isinstance(rule, int) and not isinstance(rule, bool) and rule >= 0:
        return (rule,), repr(rule)
    if isinstance(rule, range | tuple | list) and all(isinstance(size, int) and size >= 0 for size in rule):
        return tuple(sorted({size for size in rule if size <= LARGEST})), repr(rule if isinstance(rule, range) else tuple(rule))
    raise ValueError(
        f"domain: {axis}: expected sizes, a range, 'multiple of k', '1 to 512' or another axis of {', '.join(known)}, got {rule!r}"
    )


def _masks(said: Mapping[str, Any]) -> frozenset[str] | None:
    if "mask" not in said:
        return None
    shapes = said["mask"]
    shapes = () if shapes in (None, "none", "open") else tuple(shapes.split("|")) if isinstance(shapes, str) else tuple(shapes)
    if unknown := [shape for shape in shapes if shape not in MASK_AXES]:
        raise ValueError(f"domain: mask: expected None or some of {', '.join(MASK_AXES)}, got {unknown[0]!r}")
    return frozenset(shapes)


def _layouts(said: Mapping[str, Any]) -> frozenset[str] | None:
    if "layout" not in said:
        return None
    names = said["layout"]
    names = tuple(names.split("|")) if isinstance(names, str) else tuple(names)
    if unknown := [name for name in names if name not in (CONTIGUOUS, *LAYOUTS)]:
        raise ValueError(f"domain: layout: expected some of {', '.join((CONTIGUOUS, *LAYOUTS))}, got {unknown[0]!r}")
    return frozenset(names)


def _must_make_sense(domain: Domain) -> None:
    for axis in domain.axes:
        chain = [axis]
        while isinstance(other := domain.axes.get(chain[-1], ()), str):
            if other in chain:
                raise ValueError(f"domain: {chain[-1]} and {other} are each said to equal the other; give one of them sizes")
            chain.append(other)
        if domain.axes[axis] == ():
            raise ValueError(f"domain: {axis}: leaves no size up to {LARGEST}")
    free = [axis for axis in domain.axes if not isinstance(domain.axes[axis], str)]
    shapes = np.prod([len(domain.axes[axis]) for axis in free], dtype=float) if free else FEWEST
    if shapes < FEWEST and not set(signature_axes("attention")["Q"]) - set(domain.axes):
        raise ValueError(f"domain: leaves a single shape; expected at least {FEWEST} sizes of some axis")


# ---- the sizes of a call ----


_LAST: tuple[str, ...] = ("n", "m")  # of (..., n, m)
_SCORES = {"softmax": {"scores": _LAST}, "softmax_backward": {"dP": _LAST, "scores": _LAST}}


def signature_axes(step: str) -> dict[str, tuple[str, ...]]:
    """The axes of each argument that a step's signature gives, by the argument's name."""
    found = re.findall(r"(\w+) \(([^)]*)\)", STEPS[step].arguments)
    named: dict[str, tuple[str, ...]] = {
        name: tuple(axis.strip() for axis in axes.strip(" ,").split(",")) for name, axes in found if "..." not in axes
    }
    named = {name: axes for name, axes in named.items() if all(axis.isidentifier() for axis in axes)}  # not (s+1,)
    return named | _SCORES.get(step, {})


def sizes_of(step: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, int]:
    """How large each axis of a call is."""
    named = dict(zip(_names(step), args, strict=False)) | dict(kwargs)
    sizes: dict[str, int] = {}
    for name, axes in signature_axes(step).items():
        shape = np.shape(named[name]) if isinstance(named.get(name), np.ndarray) else ()
        for axis, size in zip(axes[-len(shape) :] if shape else (), shape[-len(axes) :], strict=False):
            sizes.setdefault(axis, size)  # h is that of the queries, which keys may have fewer of
    return sizes | ({"h": kwargs["h"]} if "h" in kwargs else {})


def _names(step: str) -> list[str]:
    arguments = re.sub(r"\([^)]*\)", "", STEPS[step].arguments).split("*,")[0]
    return [part.split("=")[0].strip() for part in arguments.split(",") if part.strip()]


def matches(pattern: str, shape: Sequence[int], sizes: Sizes) -> bool:
    """Whether a mask of this shape has the axes that a pattern of MASK_AXES says."""
    axes = pattern.split()
    return len(axes) == len(shape) and all(
        length == (1 if axis == "1" else sizes[axis]) for axis, length in zip(axes, shape, strict=True)
    )


# ---- the domain that examples are drawn in ----

_current: ContextVar[Domain | None] = ContextVar("domain", default=None)


@contextmanager
def drawn_in(domain: Domain | None) -> Iterator[None]:
    """While this lasts examples are drawn for an implementation of this domain."""
    token = _current.set(domain)
    try:
        yield
    finally:
        _current.reset(token)


def fitting(axis: str, size: int) -> int:
    """A size for an axis, near to the one that was drawn, that can be laid into the domain examples are drawn in."""
    domain = _current.get()
    if domain is None:
        return size
    if axis == "d_k":
        features = domain.features(axis)
        return size if features is None else features[(size - 1) % len(features)]
    allowed = domain.sizes(axis)
    if allowed is not None and axis == "d_v" and domain.root("d_v") == "d_k":
        return size
    return size if allowed is None else min(size, max(allowed))


def drawn_inside(**sizes: int) -> dict[str, int]:
    """These sizes, or those nearby that the domain examples are drawn in takes as they are: of what cannot be laid into others."""
    domain = _current.get()
    if domain is None or domain.steps is not None:  # found out of attention, it says nothing of other steps
        return sizes
    inside: dict[str, int] = {}
    for axis, size in sizes.items():
        taken = [each for each in domain.sizes(axis) or () if each]
        inside[axis] = inside.get(
            domain.root(axis), size if size in taken or not taken else taken[(size - 1) % min(FEWEST, len(taken))]
        )
    return inside


def as_many_keys_as_are_taken(n: int, m: int, seed: int) -> tuple[int, int]:
    """So many queries and keys, or the nearest that need no other keys beside them in the domain examples are drawn in.

    For what cannot be laid, since nothing would hide these. Where it takes as many queries as keys, there are no more queries.
    """
    domain = _current.get()
    allowed = None if domain is None else domain.sizes("m")
    if domain is None or allowed is None or m in allowed:
        return n, m
    least = [size for size in allowed if size >= m][:FEWEST] or [max(allowed)]
    keys = least[seed % len(least)]
    queries = keys if n == m else n
    return (min(queries, keys) if domain.root("n") == domain.root("m") else queries), keys


def takes_masks() -> bool:
    """Whether masks are in the domain that examples are drawn in."""
    domain = _current.get()
    return domain is None or domain.masks is None or bool(domain.masks)


def fitting_masks(shapes: list[tuple[int, ...]], sizes: Sizes) -> list[tuple[int, ...]]:
    """Those of the shapes of a mask that are in the domain examples are drawn in; all where none is."""
    domain = _current.get()
    if domain is None or domain.masks is None:
        return shapes
    return [shape for shape in shapes if domain.takes_mask(shape, sizes)] or shapes
