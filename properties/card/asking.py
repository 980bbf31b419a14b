"""How a small question of attention is asked, and the exact numbers of who answers it in one way or another."""

from collections.abc import Callable
from typing import Any

import numpy as np

from properties.implementations.impl import Impl
from properties.verdicts import ImplementationError, NotOffered

D_K = 16  # features: as few as most kernels take, and √16 is a power of two
ROOT = D_K**0.5


def attend(impl: Impl, scores: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """Attention (h, n, d_v) of one batch where Q·Kᵀ/√d_k are these scores (n, m), in each of h heads."""
    n, m = scores.shape
    h = len(V)
    Q, K = np.zeros((1, h, n, D_K)), np.zeros((1, h, m, D_K))
    if scores.any():  # row i times ROOT in the first feature; all rows are alike
        Q[..., 0], K[..., 0] = ROOT, scores[0]
    masks = () if mask is None else (mask,)
    try:
        return np.asarray(impl.attempt("attention", Q, K, V[None], *masks, **options))[0]
    except (NotOffered, ImplementationError):
        if V.shape[-1] == D_K:
            raise
        wide = np.pad(V, [(0, 0), (0, 0), (0, D_K - V.shape[-1])])  # for who takes d_v = d_k alone
        return np.asarray(impl.attempt("attention", Q, K, wide[None], *masks, **options))[0, ..., : V.shape[-1]]


def weight(logit: float) -> float:
    """Of a key with this logit beside one with 0."""
    return float(1 / (1 + np.exp(-logit)))


def logit(weight: float) -> float:
    """Of a key with this weight, where the one beside it has 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log(weight / (1 - weight)))


# The visible set ------------------------------------------------------------------------------------------------------


def visible(n: int, m: int, **options: Any) -> Callable[[Impl], np.ndarray]:
    """Each query's weights, where all scores are 0."""
    return lambda impl: attend(impl, np.zeros((n, m)), np.eye(m)[None], **options)[0]


def spread(seen: np.ndarray) -> np.ndarray:
    """The weights of keys that all have the same score."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(seen / seen.sum(axis=-1, keepdims=True)))


def visible_set(got: np.ndarray) -> str:
    """The visible set as a row of keys for each query."""
    return "visible: " + ", ".join(
        f"{i}→{','.join(map(str, np.flatnonzero(row))) or 'none'}" for i, row in enumerate(np.nan_to_num(got, nan=1.0))
    )


def band(n: int, m: int, off: int, left: int | None, right: int | None) -> np.ndarray:
    """Keys j of each query i with i + off − left ≤ j ≤ i + off + right."""
    distance = np.arange(m) - np.arange(n)[:, None] - off
    seen = np.ones((n, m), bool)
    seen &= distance >= -left if left is not None else True
    seen &= distance <= right if right is not None else True
    return seen


# Scale ----------------------------------------------------------------------------------------------------------------


SCALE_D_V, SCALE_H = 4, 2  # so that 1/√d_v and 1/√(h·d_k) are neither 1/√d_k nor 1


def scaled(product: float, d_v: int = SCALE_D_V, **options: Any) -> Callable[[Impl], np.ndarray]:
    """The weight of a key whose product with the query is `product` beside one whose product is 0."""

    def ask(impl: Impl) -> np.ndarray:
        V = np.zeros((SCALE_H, 2, d_v))
        V[:, 1] = 1
        return attend(impl, np.array([[0.0, product / ROOT]]), V, **options)[0, 0, :1]

    return ask


# Softcap, bias, sinks, slopes -----------------------------------------------------------------------------------------


TWO = np.array([[[0.0], [1.0]]])  # the values of two keys: the answer is the weight of the second
HIGH = 64.0  # a score that any scale leaves above each cap asked with


def capped(**options: Any) -> Callable[[Impl], np.ndarray]:
    """The weight of a key whose score is far above any cap, beside one with 0."""
    return lambda impl: attend(impl, np.array([[0.0, HIGH]]), TWO, **options)[0]


def capped_and_masked(impl: Impl) -> np.ndarray:
    """The weight of a masked key under a cap."""
    return attend(impl, np.zeros((1, 2)), TWO, np.array([[True, False]]), softcap=1.0)[0]


def biased(bias: float, **options: Any) -> Callable[[Impl], np.ndarray]:
    """The weight of a key with this bias beside one without."""
    return lambda impl: attend(impl, np.zeros((1, 2)), TWO, bias=np.array([[[[0.0, bias]]]]), **options)[0]


def sunk(sinks: tuple[float, ...], **options: Any) -> Callable[[Impl], np.ndarray]:
    """What is left of three values of 1 beside a sink, in each head."""
    return lambda impl: attend(impl, np.zeros((1, 3)), np.ones((len(sinks), 3, 1)), sinks=np.array(sinks), **options)[:, 0]


def left_beside(*sums: float) -> list[float]:
    """The same where the sink adds these to the sum of three exponentials."""
    return [3 / (3 + each) for each in sums]


def sloped(impl: Impl) -> np.ndarray:
    """The weights of the other key, for either of two queries."""
    return attend(impl, np.zeros((2, 2)), np.eye(2)[None], slopes=np.ones(1))[0][[0, 1], [1, 0]]


def sloped_from(impl: Impl) -> np.ndarray:
    """The weights of three keys, for one query."""
    return attend(impl, np.zeros((1, 3)), np.eye(3)[None], slopes=np.ones(1))[0]


def near_keys(off: int) -> np.ndarray:
    """The same where the query stands at key `off`."""
    weights = np.exp(-np.abs(off - np.arange(3.0)))
    return weights / weights.sum()


# Groups ---------------------------------------------------------------------------------------------------------------


def grouped(impl: Impl) -> np.ndarray:
    """Which of two key heads each of four query heads reads."""
    V = np.array([1.0, 2.0])[None, :, None, None]
    return np.asarray(impl.attempt("attention", np.zeros((1, 4, 1, D_K)), np.zeros((1, 2, 1, D_K)), V))[0, :, 0, 0]
