"""The number formats, and how an array of float64 is rounded to one of them.

A format of p significant bits has unit roundoff u = 2⁻ᵖ: rounding to nearest errs by at most u times the number, or by half
the smallest subnormal number where that is more.

float64 cannot be simulated in float64, so it is simulated on a grid 2¹³ times coarser, whose errors are then scaled down:
rounding errors this small are proportional to the unit roundoff.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

COARSER = 13  # bits that simulated float64 has fewer than float64

Grid = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Format:
    """One dtype: `bits` significant bits, its smallest subnormal, smallest normal and largest number, and how arrays are rounded.

    The errors of `to_nearest` are `coarser` times as large as the format's own.
    """

    name: str
    bits: int
    smallest: float
    smallest_normal: float
    to_nearest: Grid
    coarser: float = 1.0
    largest: float = float(np.finfo(np.float32).max)

    @property
    def u(self) -> float:
        """The unit roundoff."""
        return 2.0**-self.bits

    @property
    def simulated_u(self) -> float:
        """The unit roundoff of the grid that `to_nearest` rounds to."""
        return self.u * self.coarser

    @property
    def unlimited(self) -> "Format":
        """The same digits with the range of float32, where this format ends earlier."""
        return replace(self, to_nearest=_digits_of_float16, largest=FORMATS["float32"].largest) if self.name == "float16" else self


def _float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def _of_float32(dropped: int) -> Grid:
    """Round float32 to its upper bits, ties to even; what overflows there becomes infinite, NaN stays NaN."""
    half, last, kept = np.uint32(2 ** (dropped - 1) - 1), np.uint32(1), np.uint32(2**32 - 2**dropped)
    shift = np.uint32(dropped)

    def to_nearest(x: np.ndarray) -> np.ndarray:
        bits = x.astype(np.float32).view(np.uint32)
        carry = bits >> shift
        carry &= last
        carry += half
        carry += bits
        carry &= kept
        return carry.view(np.float32).astype(np.float64)

    return to_nearest


def _digits_of_float16(x: np.ndarray) -> np.ndarray:
    """As float32 cut to eleven bits, with float16's own subnormals and the largest number of float32."""
    rounded = _of_eleven_bits(x)
    subnormal = np.abs(rounded) < 2.0**-14
    subnormal &= rounded != 0.0
    if subnormal.any():
        shift = 1.5 * 2.0 ** (52 - 24)  # added and taken away again, it leaves multiples of 2⁻²⁴
        rounded = np.where(subnormal, (x + shift) - shift, rounded)
    return rounded


def _float16(x: np.ndarray) -> np.ndarray:
    """The digits of float16 and its largest number."""
    rounded = _digits_of_float16(x)
    size = np.abs(rounded)
    if size.max(initial=0.0) > 65504.0:
        rounded = np.where(size > 65504.0, np.copysign(np.inf, rounded), rounded)
    return rounded


def _coarse_float64(x: np.ndarray) -> np.ndarray:
    half, last, kept = np.uint64(2 ** (COARSER - 1) - 1), np.uint64(1), np.uint64(2**64 - 2**COARSER)
    bits = np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)
    return ((bits + (half + ((bits >> np.uint64(COARSER)) & last))) & kept).view(np.float64)


_of_eleven_bits = _of_float32(13)

FORMATS = {
    "float64": Format("float64", 53, 2.0**-1074, 2.0**-1022, _coarse_float64, 2.0**COARSER),
    "float32": Format("float32", 24, 2.0**-149, 2.0**-126, _float32),
    "tf32": Format("tf32", 11, 2.0**-136, 2.0**-126, _of_eleven_bits),  # of matrix operands only
    "float16": Format("float16", 11, 2.0**-24, 2.0**-14, _float16, largest=65504.0),
    "bfloat16": Format("bfloat16", 8, 2.0**-133, 2.0**-126, _of_float32(16)),
}

FINE_FLOAT64 = replace(FORMATS["float64"], to_nearest=np.copy, coarser=1.0)
"""float64 as it is: for what is not proportional to the unit roundoff, the numbers that are flushed to 0."""
