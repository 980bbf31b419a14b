"""Masks: what a word may look at. True means *may look*.

    scores_ij ← scores_ij where word i may look at word j, −∞ elsewhere

Vaswani et al. (2017), section 3.2.3: "masking out (setting to −∞) all values in the input of the softmax which correspond to
illegal connections".
"""

import numpy as np
from jaxtyping import Bool, Float64


def causal_mask(n: int, m: int | None = None) -> Bool[np.ndarray, "n m"]:
    """Lower-triangular: word i sees itself and what came before. With m ≠ n both sequences begin at the same word (top-left)."""
    m = n if m is None else m
    return np.arange(m)[None, :] <= np.arange(n)[:, None]


def padding_mask(real: Bool[np.ndarray, " m"], n: int) -> Bool[np.ndarray, "n m"]:
    """Every one of n words may look at the `real` words alone; the others only fill up the length."""
    return np.repeat(real[None, :], n, axis=0)


def both(first: Bool[np.ndarray, "n m"] | None, second: Bool[np.ndarray, "n m"] | None) -> Bool[np.ndarray, "n m"] | None:
    """What both masks allow; None allows everything."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def apply_mask(scores: Float64[np.ndarray, "n m"], mask: Bool[np.ndarray, "n m"] | None) -> Float64[np.ndarray, "n m"]:
    """Put −∞ in place of every hidden score.

    In place of, not added to: an overflowed score plus −∞ would be NaN. And −∞, not −10⁹: exp(−∞) is exactly 0.
    """
    return scores if mask is None else np.where(mask, scores, -np.inf)
