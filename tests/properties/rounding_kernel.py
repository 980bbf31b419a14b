"""Attention of NumPy arrays that adds up as it is told to: in a number format, in an order, and rounded on the way."""

import numpy as np
import torch

from properties.implementations.conventions import Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES


class Rounding:
    """Attention that adds up one term after the other in a format, and may store scores and weights in its dtype."""

    name, arrays, dtypes, conventions = "rounding", "torch", tuple(DTYPES), Conventions()
    steps = frozenset({"attention"})

    def __init__(self, accumulation="float32", *, stores="", order=None):
        self.round = np.copy if accumulation == "float64" else FORMATS[accumulation].to_nearest
        self.stores, self.order = stores, order or accumulated

    def attention(self, Q, K, V, mask=None):
        dtype, stored = Q.dtype, FORMATS[str(Q.dtype).removeprefix("torch.")].to_nearest
        Q, K, V = (X.to(torch.float64).numpy() for X in (Q, K, V))
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self.sum([Q[..., :, None, i] * K[..., None, :, i] for i in range(Q.shape[-1])])
            scores = scores / np.sqrt(Q.shape[-1])
            scores = stored(scores) if "scores" in self.stores else scores
            if mask is not None:
                scores = np.where(mask.numpy(), scores, -np.inf)
            weights = self.round(np.exp(scores - scores.max(axis=-1, keepdims=True)))
            if "unnormalised" in self.stores:
                numerator = stored(weights)
                total = self.sum([weights[..., i] for i in range(weights.shape[-1])])[..., None]
                values = self.sum([numerator[..., i, None] * V[..., i, None, :] for i in range(V.shape[-2])])
                return torch.from_numpy(self.round(values / total)).to(dtype)
            weights = self.round(weights / self.sum([weights[..., i] for i in range(weights.shape[-1])])[..., None])
            weights = stored(weights) if "weights" in self.stores else weights
            values = self.order([weights[..., i, None] * V[..., i, None, :] for i in range(V.shape[-2])], self.added)
            return torch.from_numpy(values).to(dtype)

    def added(self, one, other):
        return self.round(one + other)

    def sum(self, terms):
        return accumulated(terms, self.added)


def accumulated(terms, add):
    """One after the other."""
    total = add(terms[0], 0.0)
    for term in terms[1:]:
        total = add(total, term)
    return total


def lanes(width):
    """Every width-th term after the other, then the lanes."""
    return lambda terms, add: accumulated([accumulated(terms[i::width], add) for i in range(min(width, len(terms)))], add)


def pairwise(terms, add):
    """The halves first."""
    if len(terms) == 1:
        return add(terms[0], 0.0)
    half = 1 << (len(terms) - 1).bit_length() - 1
    return add(pairwise(terms[:half], add), pairwise(terms[half:], add))


def in_groups(width):
    """Each group pairwise, the groups one after the other."""
    return lambda terms, add: accumulated([pairwise(terms[i : i + width], add) for i in range(0, len(terms), width)], add)
