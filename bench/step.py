"""What the file of a step holds: its claim, the sizes it is timed at, and the formulas of its work.

Sizes are the paper's letters: b sequences of n tokens, m of the source, h heads, d_model, d_ff, layers, vocab, length.
Inputs are normal numbers rounded to 1/64 and cut at ±4. bfloat16 holds them exactly, so peers of any dtype and the oracle get the
same question. They are never constant: values change the speed, since zeros flip fewer bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from properties.inputs.parameters import Nested

Sizes = dict[str, int]
Formula = Callable[[Sizes], int]
Product = tuple[int, int, int]  # (rows, inner, columns)

PAPER = {"h": 8, "d_model": 512, "d_ff": 2048, "layers": 6, "vocab": 10_000}
TOKENS = {**PAPER, "b": 8, "n": 64, "m": 64}  # for a step alone: long enough to fill a core, short enough for the oracle
SOFT = 0.25  # scale of what a sublayer adds: with more, an untrained model generates one token for ever


class Draw:
    """One stream of random numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Multiples of scale/64 within ±4 · scale; `scale` is a power of two."""
        drawn = self.rng.standard_normal(shape, dtype=np.float32)
        return np.clip(np.round(drawn * 64), -256, 256).astype(np.float64) * (scale / 64)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """A weight of scale ≈ 1/√rows: features neither grow nor vanish."""
        return self.normal(rows, columns, scale=2.0 ** -round(np.log2(rows) / 2))

    def tokens(self, *shape: int, vocab: int) -> np.ndarray:
        """Token ids without 0, the start of generation."""
        return self.rng.integers(1, vocab, shape)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the article, as it is timed."""

    name: str  # of properties.steps, or "training"
    claim: str  # that a wrong output breaks
    workloads: dict[str, Sizes]  # by name, `family.variant`
    elements: Formula  # every number of inputs, weights and result once: no implementation reads or writes less
    inputs: Callable[[Draw, Sizes], tuple[Any, ...]]
    weights: Callable[[Draw, Sizes], Nested] = lambda _, __: {}  # and options: what all calls share
    flops: Formula = lambda _: 0  # of matrix products only, as torch.utils.flop_counter counts; a causal product counts in full
    products: Callable[[Sizes], list[Product]] = lambda _: []  # their shapes, of one head where heads are separate
    tokens: Formula | None = None  # that one call works on, where tokens per second are of interest
    axis: str = ""  # the size that grows along the family, where growth is measured
    boolean: bool = False  # whether an element is a byte in every dtype


def product(rows: int, inner: int, columns: int) -> int:
    """The flops of (rows, inner) @ (inner, columns)."""
    return 2 * rows * inner * columns


def features_count(s: Sizes) -> int:
    """The numbers of one (b, n, d_model)."""
    return s["b"] * s["n"] * s["d_model"]


def features(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """X."""
    return (draw.normal(s["b"], s["n"], s["d_model"]),)


def features_and_memory(draw: Draw, s: Sizes) -> tuple[Any, ...]:
    """X and M, which differ: with X for both, Q, K and V could be one product."""
    return *features(draw, s), draw.normal(s["b"], s["m"], s["d_model"])
