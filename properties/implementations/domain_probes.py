"""The domain of an implementation that declares none, found out: which sizes, masks and layouts of attention it takes.

A few dozen calls, each axis alone and then pairs. What is refused by an exception that says so is outside; whatever is answered is
inside, where the properties see it. Where a call ends in another way, nothing is found, and the properties see that too.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from properties.implementations.autograd import FORWARD
from properties.implementations.conventions import OURS
from properties.implementations.domain import FEWEST, MASK_AXES, Domain
from properties.implementations.layouts import CONTIGUOUS, LAYOUTS
from properties.steps import Sizes
from properties.verdicts import ImplementationCrash, ImplementationError, ImplementationTimeout, NotOffered

if TYPE_CHECKING:
    from properties.implementations.impl import Impl

REFUSALS = ("ValueError", "TypeError", "RuntimeError", "AssertionError", "NotImplementedError")
"""Exceptions that say of an argument that it is not taken. Any other, an IndexError say, is an accident."""


ANY = (Sizes(2, 3, 4, 5, 6, 7), Sizes(2, 3, 4, 5, 1, 2))  # all different, as examples are: who takes these is limited in no axis
FIRST = (
    *(Sizes(2, 2, *lengths, d, d) for d in (4, 8, 16) for lengths in ((3, 5), (4, 4))),
    *(Sizes(1, 2, n, n, d, d) for n in (128, 64, 256, 16, 512) for d in (64, 32, 128, 16, 256, 80)),
)
"""Shapes that are tried until one is taken: from what nearly everything takes to what kernels are written for."""

WIDTHS = (1, 2, 3, 4, 6, 8, 16, 24, 32, 40, 48, 64, 72, 80, 96, 128, 160, 192, 256)
LENGTHS = (1, 2, 3, 5, 8, 16, 17, 24, 32, 48, 64, 96, 100, 128, 160, 192, 256, 320, 384, 512, 640)
FEW = (1, 2, 3, 4, 5, 8)
Taken = Callable[[Sizes], bool]


def found(impl: "Impl") -> Domain | None:
    """What it takes, as probes see it; None where nothing is limited, where nothing tried is taken, or a call ends by accident."""
    try:
        return _found(impl) if impl.offers("attention") else None
    except (ImplementationError, ImplementationCrash, ImplementationTimeout):  # the properties will say so
        return None


def takes_any(impl: "Impl") -> bool:
    """Whether it takes any of the shapes that are tried, in its dtype."""
    asked = impl.within(None).under(OURS)
    try:
        return any(_takes(asked, shape) for shape in (*ANY, *FIRST))
    except (ImplementationError, ImplementationCrash, ImplementationTimeout):
        return False


def _found(impl: "Impl") -> Domain | None:
    asked = impl.within(None).under(OURS)

    def takes(shape: Sizes) -> bool:
        return _takes(asked, shape)

    if all(map(takes, ANY)):
        base, axes = ANY[0], {}
    else:
        taken = next(filter(takes, FIRST), None)
        if taken is None:
            return None
        base, axes = taken, _axes(takes, taken)
        base = _apart(axes, base)
    steps = frozenset({"attention", *(step for step, forward in FORWARD.items() if forward == "attention")})
    layouts, masks = _layouts(asked, base), _masks(asked, base)
    domain = Domain(axes, masks, layouts, declared=False, steps=steps, said=_said(axes))
    return domain or None


def answered_outside(impl: "Impl") -> str:
    """In a sentence, the smallest argument outside of a declared domain that is answered wrongly, not refused; "" for none.

    Each limited axis in turn has the smallest size that it may not have. All queries point at the last key, so strongly that no
    other has a weight but 0: every answer is that key's value, 1.
    """
    domain = impl.domain
    if not (domain and domain.declared and impl.offers("attention")):
        return ""
    asked = impl.within(None).under(impl.conventions)
    for axis in (axis for axis in domain.axes if axis in Sizes._fields and not isinstance(domain.axes[axis], str)):
        allowed = domain.sizes(axis) or ()
        size = next(size for size in range(1, max(allowed) + 2) if size not in allowed)
        shape = _inside(domain)._replace(**{other: size for other in Sizes._fields if domain.root(other) == axis})
        b, h, n, m, d_k, d_v = shape
        last, first = (np.arange(m) == m - 1)[:, None], np.arange(d_k) == 0
        Q, K = np.broadcast_to(2.0**8 * first, (b, h, n, d_k)), np.broadcast_to(2.0**7 * (last & first), (b, h, m, d_k))
        try:
            got = asked.attempt("attention", Q, K, np.broadcast_to(1.0 * last, (b, h, m, d_v)))
        except (NotOffered, ImplementationError, ImplementationCrash, ImplementationTimeout):
            continue
        if not (got == 1).all():
            return f"attention of {axis} = {size} is outside of its domain, and is answered wrongly instead of refused"
    return ""


def _inside(domain: Domain) -> Sizes:
    """The smallest shape that is taken."""
    return Sizes(*(max(1, min(sizes)) if (sizes := domain.sizes(axis)) else 1 for axis in Sizes._fields))


def _takes(impl: "Impl", shape: Sizes, mask: np.ndarray | None = None, layout: str | None = None) -> bool:
    b, h, n, m, d_k, d_v = shape
    arguments = np.zeros((b, h, n, d_k)), np.zeros((b, h, m, d_k)), np.ones((b, h, m, d_v))
    try:
        (impl if layout is None else impl.reading(layout)).attempt("attention", *arguments, *([] if mask is None else [mask]))
    except NotOffered:
        return False
    except ImplementationError as error:
        if getattr(error, "raised", False) and str(error).split(" raised ")[-1].startswith(REFUSALS):
            return False
        raise
    return True


# ---- sizes ----


def _axes(takes: Taken, base: Sizes) -> dict[str, tuple[int, ...] | str]:
    axes: dict[str, tuple[int, ...] | str] = {}
    for axis, other, sizes in (("d_k", "d_v", WIDTHS), ("n", "m", LENGTHS)):
        together = [size for size in sizes if takes(base._replace(**{axis: size, other: size}))]
        if len(together) < len(sizes):
            axes[axis] = _rule(together, sizes)
        first, second = together[0], together[min(1, len(together) - 1)]
        if not takes(base._replace(**{axis: first, other: second})) or not takes(base._replace(**{axis: second, other: first})):
            axes[other] = axis
        elif axis in axes:
            alone = [size for size in sizes if takes(base._replace(**{axis: first, other: size}))]
            if len(alone) < len(sizes):
                axes[other] = _rule(alone, sizes)
            else:
                axes[axis] = _rule([size for size in sizes if takes(base._replace(**{axis: size, other: first}))], sizes)
    for axis in ("b", "h"):
        taken = [size for size in FEW if takes(base._replace(**{axis: size}))]
        if len(taken) < len(FEW):
            axes[axis] = _rule(taken, FEW)
    return axes


def _rule(taken: Sequence[int], tried: Sequence[int]) -> tuple[int, ...]:
    """The sizes up to the largest that was taken; multiples of a number, where that is what they are, without end."""
    step = gcd(*taken)
    if len(taken) >= FEWEST and list(taken) == [size for size in tried if size % step == 0]:
        return tuple(range(step, 8193, step))
    return tuple(taken)


def _said(axes: dict[str, tuple[int, ...] | str]) -> dict[str, str]:
    """Multiples in words."""
    many = {axis: sizes for axis, sizes in axes.items() if isinstance(sizes, tuple) and len(sizes) > len(LENGTHS)}
    return {axis: repr(f"multiple of {sizes[0]}") for axis, sizes in many.items()}


def _apart(axes: dict[str, tuple[int, ...] | str], base: Sizes) -> Sizes:
    """A shape with axes as different as they may be, for masks."""
    return base._replace(b=2 if "b" not in axes else base.b, h=3 if "h" not in axes else base.h)


# ---- masks and layouts ----


def _masks(impl: "Impl", base: Sizes) -> frozenset[str] | None:
    """The shapes of a mask that are taken, as any of the ways to write one; None: all of them."""
    sizes = base._asdict()
    usual = MASK_AXES[:-3]  # of four axes, and (n, m): others are taken where broadcasting is
    taken = {
        pattern for pattern in usual if _takes_mask(impl, base, [1 if axis == "1" else sizes[axis] for axis in pattern.split()])
    }
    if len(taken) == len(usual):
        return None
    return frozenset(taken)


def _takes_mask(impl: "Impl", base: Sizes, shape: Sequence[int]) -> bool:
    return _takes(impl, base, np.ones(shape, dtype=bool))


def _layouts(impl: "Impl", base: Sizes) -> frozenset[str] | None:
    taken = {layout for layout in LAYOUTS if _takes(impl, base, layout=layout)}
    return None if len(taken) == len(LAYOUTS) else frozenset({CONTIGUOUS, *taken})
