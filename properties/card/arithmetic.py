"""How attention computes: in how many bits it adds up, what it rounds in between, how good its exponential is.

A number of p significant bits holds 2ᵏ + 1 for k < p and not for k ≥ p. So 2ᵏ + 1 − 2ᵏ, with the 1 in the midst, is 1 as long as
k < p and 0 from there on: the first k that loses it is the width. The three terms stand at several places, and the first loss at
any of them counts, since a sum that meets −2ᵏ early loses nothing.
"""

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from properties.implementations.formats import FORMATS
from properties.implementations.impl import Impl

D = 16  # features, and keys of a sum: as few as most kernels take, and √16 is a power of two
PLACES = ((0, 1, 15), (0, 8, 15), (0, 14, 15), (15, 1, 0), (15, 8, 0), (15, 14, 0))  # of 2ᵏ, 1 and −2ᵏ
MOST_BITS = {"float64": 56, "float32": 56, "bfloat16": 56, "float16": 25}  # k asked for: float16 holds no larger ratio
NAMES = {FORMATS[name].bits: name for name in ("bfloat16", "float16", "float32", "float64")}


@dataclass(frozen=True)
class Width:
    """In how many bits a sum is accumulated: `bits`, or more than that."""

    bits: int
    more: bool = False

    @property
    def format(self) -> str:
        """The format of that width, or the narrowest that is wide enough; "" for none."""
        if self.more:
            return next((name for bits, name in NAMES.items() if bits > self.bits), "")
        return next((name for bits, name in NAMES.items() if abs(bits - self.bits) <= 1), "")

    def __str__(self) -> str:
        if self.more:
            return f"{self.format} or wider" if self.format else f"wider than {self.bits} bits"
        return self.format or f"{self.bits} bits"


def _first_loss(kept: np.ndarray, most: int) -> Width:
    """The width by which numbers were kept, (places, k): the first k lost in any place."""
    lost = np.flatnonzero(~kept.all(axis=0))
    return Width(int(lost[0])) if lost.size else Width(most, more=True)


def _parts(impl: Impl, number: float, count: int = 3) -> list[float]:
    """A number as a sum of `count` numbers of the dtype, the largest first."""
    parts: list[float] = []
    for _ in range(count):
        parts.append(float(impl.representable(np.array(number - sum(parts)))))
    return parts


# Widths ---------------------------------------------------------------------------------------------------------------


def of_products(impl: Impl) -> Width:
    """In how many bits Q·Kᵀ adds up its products."""
    most = MOST_BITS[impl.dtype]
    factor = 2.0**12 if impl.dtype == "float16" else 1.0  # on the side of K, so that Q holds 2ᵏ
    Q = np.zeros((len(PLACES), most + 1, D))
    for row, (big, one, minus) in zip(Q, PLACES, strict=True):
        row[:, big], row[:, minus] = 2.0 ** np.arange(most + 1), -(2.0 ** np.arange(most + 1))
        row[:, one] = 1.0
    Q, K = (4 / factor * Q).reshape(1, 1, -1, D), np.zeros((1, 1, 2, D))
    K[..., 1, :] = factor
    got = _second_weight(impl, Q, K).reshape(len(PLACES), -1)
    with np.errstate(invalid="ignore"):
        return _first_loss(got > (0.5 + got[0, 0]) / 2, most)


def of_values(impl: Impl) -> Width:
    """In how many bits P·V adds up, all scores being equal."""
    most = MOST_BITS[impl.dtype]
    unit = 2.0**-10 if impl.dtype == "float16" else 1.0
    V = np.zeros((len(PLACES), most + 1, D))
    for row, (big, one, minus) in zip(V, PLACES, strict=True):
        row[:, big], row[:, minus] = unit * 2.0 ** np.arange(most + 1), -unit * 2.0 ** np.arange(most + 1)
        row[:, one] = unit
    got = weighted_alike(impl, V.reshape(-1, D)) / (unit / D)
    with np.errstate(invalid="ignore"):
        return _first_loss(got.reshape(len(PLACES), -1) > 0.5, most)


def weighted_alike(impl: Impl, columns: np.ndarray) -> np.ndarray:
    """The mean of each of these columns of values (columns, keys), D of them in a head."""
    count, m = columns.shape
    h = -(-count // D)
    V = np.zeros((h * D, m))
    V[:count] = columns
    Q, K = np.zeros((1, h, 1, D)), np.zeros((1, h, m, D))
    return np.asarray(impl.attempt("attention", Q, K, V.reshape(1, h, D, m).swapaxes(-1, -2))).reshape(-1)[:count]


def of_the_sum(impl: Impl) -> Width:
    """In how many bits softmax adds up exponentials.

    First 1 + 2⁻ᵏ with two keys, in any order exact, as far as the dtype shows it in the quotient; where that is kept, 1 + t·2⁻ᵏ
    with many: a sum in blocks loses only a part of it, and a part too small to be seen counts as wider.
    """
    bits = FORMATS[impl.dtype].bits
    ks = np.arange(1, bits + 1)
    got = _first_weight(impl, ks, 1)
    kept = np.abs(_rest(got) * 2.0**ks - 1) < 0.3
    if not kept.all():
        return Width(int(ks[~kept][0]))
    if impl.dtype == "float64":
        return Width(bits, more=True)
    many = 2**10
    ks = bits + np.arange(1, 6)
    kept = np.abs(_rest(_first_weight(impl, ks, many)) * 2.0**ks / many - 1) < 0.05
    return Width(int(ks[~kept][0])) if not kept.all() else Width(int(ks[-1]), more=True)


def _first_weight(impl: Impl, ks: np.ndarray, others: int) -> np.ndarray:
    """The weight of a key with score 0, before `others` with scores −k·ln 2, for each k."""
    Q, K = np.zeros((1, 1, len(ks), D)), np.zeros((1, 1, 1 + others, D))
    V = np.zeros((1, 1, 1 + others, D))
    for row, k in zip(Q[0, 0], ks, strict=True):
        row[:3] = [4 * part for part in _parts(impl, -float(k) * np.log(2.0))]
    K[..., 1:, :3] = 1
    V[..., 0, :] = 1
    return np.asarray(impl.attempt("attention", Q, K, V))[0, 0, :, 0]


def _rest(weight: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(1 / weight - 1)


def _second_weight(impl: Impl, Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    V = np.zeros((1, 1, 2, D))
    V[..., 1, :] = 1
    return np.asarray(impl.attempt("attention", Q, K, V))[0, 0, :, 0]


# What is rounded in between -------------------------------------------------------------------------------------------

ROUNDED, KEPT, UNCLEAR = "rounded", "kept", "unclear"
BEFORE_DIVISION = "rounded before the division"


def scores_rounded(impl: Impl) -> str:
    """Whether Q·Kᵀ is stored in a dtype narrower than float32: 2ᵖ and 2ᵖ + 1/2 are the same there."""
    top = 2.0 ** FORMATS[impl.dtype].bits
    Q, K = np.zeros((1, 1, 1, D)), np.zeros((1, 1, 2, D))
    Q[..., :2] = 4.0
    K[..., 0], K[0, 0, 1, 1] = top, 0.5
    got = float(_second_weight(impl, Q, K)[0])
    return _nearest(np.array([got]), {ROUNDED: np.array([0.5]), KEPT: np.array([1 / (1 + np.exp(-0.5))])})


SCORES = (1.0, 2.0, 3.0, 5.0)  # of a second key beside one with 0


def weights_rounded(impl: Impl) -> str:
    """Whether the weights P are stored in a dtype narrower than float32 before P·V, and whether as they are or before the division.

    Values that cancel nearly leave the rounding of the weights: one is −1, the other the dtype's number next to eˢ.
    """
    to_nearest = FORMATS[impl.dtype].to_nearest
    s = np.array(SCORES)
    ratio = to_nearest(np.exp(s))
    Q, K = np.zeros((1, 1, len(s), D)), np.zeros((1, 1, 2, D))
    Q[0, 0, :, 0], K[0, 0, 1, 0] = 4 * s, 1.0
    V = np.zeros((1, 1, 2, D))
    V[0, 0, 0, : len(s)], V[0, 0, 1] = ratio, -1.0
    got = np.asarray(impl.attempt("attention", Q, K, V))[0, 0][np.arange(len(s)), np.arange(len(s))]
    sum_, low = 1 + np.exp(-s), np.exp(-s)
    return _nearest(
        got,
        {
            ROUNDED: to_nearest(low / sum_) * ratio - to_nearest(1 / sum_),
            KEPT: (low * ratio - 1) / sum_,
            BEFORE_DIVISION: (to_nearest(low) * ratio - 1) / sum_,
        },
    )


def _nearest(got: np.ndarray, answers: dict[str, np.ndarray]) -> str:
    """The answer that `got` is, nearer than a quarter of the way to any other."""
    for name, answer in answers.items():
        others = [np.abs(answer - other).max() for key, other in answers.items() if key != name]
        if np.abs(got - answer).max() < min(others) / 4:
            return name
    return UNCLEAR


# The exponential ------------------------------------------------------------------------------------------------------

ARGUMENTS = 0.25 * np.arange(1, 49)  # below the largest score; exact in each dtype


@dataclass(frozen=True)
class Exponential:
    """How far a weight of softmax is from the exact one, at worst: in units in the last place of the dtype."""

    ulps: float
    argument: float

    def __str__(self) -> str:
        return "correctly rounded" if self.ulps <= 0.5 else f"{self.ulps:.2g} ulp at x = {self.argument:g}"


def exponential(impl: Impl) -> Exponential:
    """The largest error of e⁻ˣ/(1 + e⁻ˣ) over a few dozen x, asked of softmax, or of attention for who has no softmax."""
    x = ARGUMENTS
    if impl.offers("softmax"):
        got = np.asarray(impl.attempt("softmax", np.stack([np.zeros_like(x), -x], axis=-1)))[:, 1]
    else:
        Q, K = np.zeros((1, 1, len(x), D)), np.zeros((1, 1, 2, D))
        Q[0, 0, :, 0], K[0, 0, 1, 0] = -4 * x, 1.0
        got = _second_weight(impl, Q, K)
    with mpmath.workprec(200):
        errors = [_ulps(impl.dtype, float(answer), mpmath.exp(-a) / (1 + mpmath.exp(-a))) for answer, a in zip(got, x, strict=True)]
    worst = int(np.argmax(errors))
    return Exponential(float(errors[worst]), float(x[worst]))


def _ulps(dtype: str, got: float, exact: Any) -> float:
    """By how many units in the last place of the exact number another is off."""
    if not np.isfinite(got):
        return float("inf")
    _, exponent = mpmath.frexp(exact)
    return float(abs(mpmath.mpf(got) - exact) / max(mpmath.mpf(2) ** (exponent - FORMATS[dtype].bits), FORMATS[dtype].smallest))
