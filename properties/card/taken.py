"""Which sizes, masks and memory layouts attention takes: each asked for alone, beside sizes that it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from properties.implementations import layouts
from properties.implementations.impl import Impl
from properties.verdicts import ImplementationError, NotOffered


@dataclass(frozen=True)
class Sizes:
    """Of one call: batch, heads, queries, keys, features of a key and of a value."""

    b: int = 2
    h: int = 2
    n: int = 5
    m: int = 10
    d_k: int = 16
    d_v: int = 16

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q, K and V of small whole numbers, which every dtype holds."""
        shapes = ((self.n, self.d_k), (self.m, self.d_k), (self.m, self.d_v))
        return tuple(  # type: ignore[return-value]
            np.resize(np.array([0.0, 1.0, -1.0, 2.0, 0.0]), (self.b, self.h, *shape)) for shape in shapes
        )


STARTS = (Sizes(), Sizes(n=16, m=16), Sizes(n=64, m=64, d_k=64, d_v=64), Sizes(n=128, m=128, d_k=64, d_v=64))
WIDTHS, LENGTHS = (1, 3, 8, 16, 32, 64, 80, 128, 256), (1, 5, 16, 64, 128, 129)


@dataclass
class Taken:
    """One thing that may vary, and what of it was taken and what refused; `other` for what is answered with other bits."""

    name: str
    taken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def start(impl: Impl) -> Sizes | None:
    """The first sizes that are taken, from which one is varied at a time; None for none."""
    return next((sizes for sizes in STARTS if _takes(impl, sizes)), None)


def sizes_taken(impl: Impl, of: Sizes) -> list[Taken]:
    """Widths of a head, lengths, n ≠ m, d_v ≠ d_k, no queries and no keys, and masks by their shape."""
    widths, lengths = _widths_and_lengths(impl, of)
    asked: dict[str, dict[str, Sizes]] = {
        "n ≠ m": {f"{of.n} ≠ {2 * of.n}": replace(of, m=2 * of.n)},
        "d_v ≠ d_k": {f"{of.d_k // 2} ≠ {of.d_k}": replace(of, d_v=of.d_k // 2)},
        "empty": {"n = 0": replace(of, n=0), "m = 0": replace(of, m=0), "b = 0": replace(of, b=0)},
    }
    found = [_sorted(name, {said: _takes(impl, sizes) for said, sizes in every.items()}) for name, every in asked.items()]
    found = [_sorted("d_k", widths), _sorted("n = m", lengths), *found]
    masks = {"(m)": (of.m,), "(n, m)": (of.n, of.m), "(b, 1, 1, m)": (of.b, 1, 1, of.m), "(b, h, n, m)": (of.b, of.h, of.n, of.m)}
    return [*found, _sorted("mask", {said: _takes(impl, of, np.ones(shape, bool)) for said, shape in masks.items()})]


def _widths_and_lengths(impl: Impl, of: Sizes) -> tuple[dict[str, bool], dict[str, bool]]:
    """Which are taken. Two are asked for together, and each alone where that is refused: a library may compile every shape anew."""
    widths = [replace(of, d_k=d, d_v=d) for d in WIDTHS]
    lengths = [replace(of, n=n, m=n) for n in LENGTHS]
    both = [_takes(impl, replace(wide, n=long.n, m=long.m)) for wide, long in zip(widths, lengths, strict=False)]
    alone = [both[i] if i < len(both) and both[i] else _takes(impl, sizes) for i, sizes in enumerate(widths)]
    across = [taken or _takes(impl, sizes) for taken, sizes in zip(both, lengths, strict=True)]
    return dict(zip(map(str, WIDTHS), alone, strict=True)), dict(zip(map(str, LENGTHS), across, strict=True))


def layouts_taken(impl: Impl, of: Sizes) -> Taken:
    """Memory layouts of the arguments: taken where the answer has the bits of the contiguous one."""
    found, expected = Taken("layout"), np.asarray(impl.attempt("attention", *of.arrays()))
    for name, got in _laid_out(impl, of):
        {True: found.taken, False: found.other, None: found.refused}[
            None if got is None else np.array_equal(got, expected, equal_nan=True)
        ].append(name)
    return found


def _laid_out(impl: Impl, of: Sizes) -> Iterator[tuple[str, np.ndarray | None]]:
    for layout in layouts.LAYOUTS:
        try:
            yield layout, np.asarray(impl.reading(layout).attempt("attention", *of.arrays()))
        except (NotOffered, ImplementationError):
            yield layout, None


def _takes(impl: Impl, sizes: Sizes, *mask: Any) -> bool:
    """Whether this is answered with an array of the right shape. A crash or a hang is raised."""
    try:
        impl.attempt("attention", *sizes.arrays(), *mask)
    except (NotOffered, ImplementationError):
        return False
    return True


def _sorted(name: str, answers: Mapping[str, bool]) -> Taken:
    return Taken(name, [said for said, taken in answers.items() if taken], [said for said, taken in answers.items() if not taken])
