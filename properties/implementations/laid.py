"""A question laid into a larger shape that an implementation takes, so that what it says of the question is what it must say.

Attention of n queries and m keys of d_k features, laid into N × M × D:

    features   D = 4ᵏ·d_k, the others zero, and Q times 2ᵏ: Q·Kᵀ/√D is what Q·Kᵀ/√d_k was, bit for bit
    keys       the others get scores so low that they weigh exactly nothing, by a feature of their own in which every query is large
               and they alone are not zero; or the mask hides them
    queries    the others are zero but for that feature; their rows are nobody's

Where in the shape the tokens lie differs from one set of sizes to another: at the front, at the end, scattered, or at the edges
of blocks. The order of tokens is kept, and under a causal rule queries and keys lie at the same places.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from properties.implementations.domain import MASK_AXES, Domain, matches, sizes_of
from properties.verdicts import NotOffered

EDGES = (0, -1, 127, 128, 63, 64, 31, 32, 255, 256, 15, 16, 7, 8)  # places beside the edges of blocks
NOTHING = {"float64": 1024.0, "float32": 256.0, "bfloat16": 256.0, "float16": 256.0}
"""How far below the lowest score one is whose exponential is 0, in the dtype and in what it is accumulated in."""

BESIDE = {"float64": 2.0**1000, "float32": 2.0**120, "bfloat16": 2.0**120, "float16": 2.0**15}  # numbers that are still taken
ROOM = 2**23  # numbers in the scores and rows of a larger question
Places = np.ndarray  # of tokens or features, in a larger shape


class Laid(NamedTuple):
    """The arguments of the larger call, and where in its answer the smaller one's is: places along each axis of the answer."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    places: tuple[Places, ...] | None = None

    def taken(self, answer: np.ndarray) -> np.ndarray:
        """What the answer says of the smaller question."""
        return answer if self.places is None else answer[np.ix_(*self.places)]

    def spread(self, answer: np.ndarray, shape: tuple[int, ...], rest: float) -> np.ndarray:
        """The smaller answer at its places in the larger one, `rest` everywhere else."""
        if self.places is None:
            return answer
        whole = np.full(shape, rest)
        whole[np.ix_(*self.places)] = answer
        return whole


def laid(
    domain: Domain | None,
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    dtype: str,
    asks_for_a_mean: bool = False,
) -> Laid:
    """The call as it can be asked within the domain. Raises NotOffered where it cannot be.

    `asks_for_a_mean`: some query is fully masked, and gets the mean of V, which of more keys is another.
    """
    if not domain:
        return Laid(args, kwargs)
    sizes = sizes_of(step, args, kwargs)
    if domain.steps is not None and step not in domain.steps:
        return Laid(args, kwargs)
    domain.must_take(step, [args[3]] if step == "attention" and args[3:] else [], sizes)
    why = domain.why_not(step, sizes)
    if not why:
        return Laid(args, kwargs)
    if step != "attention" or 0 in sizes.values():
        raise NotOffered(f"{why}: outside of its domain")
    return _Attention(domain, sizes, args, kwargs, dtype, why).laid(asks_for_a_mean=asks_for_a_mean)


def places_of(kind: int, count: int, size: int, rng: np.random.Generator) -> Places:
    """Where `count` tokens lie among `size`, in order."""
    match kind % 4:
        case 0:
            return np.arange(count)
        case 1:
            return np.arange(size - count, size)
        case 2:
            return np.sort(rng.choice(size, count, replace=False))
        case _:
            edges = list(dict.fromkeys(edge % size for edge in EDGES if edge < size))
            others = [place for place in range(size) if place not in edges]
            return np.sort(np.array([*edges, *others])[:count])


class _Attention:
    """One attention on its way into a larger shape."""

    def __init__(
        self, domain: Domain, sizes: dict[str, int], args: Sequence[Any], kwargs: dict[str, Any], dtype: str, why: str
    ) -> None:
        self.domain, self.was, self.kwargs, self.dtype, self.why = domain, sizes, kwargs, dtype, why
        self.Q, self.K, self.V, *masks = args
        self.mask = masks[0] if masks else None
        self.has_mask_argument = len(args) > 3
        shape = [sizes[axis] for axis in ("n", "m", "d_k", "d_v")]
        self.rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(repr(shape).encode(), digest_size=4).digest(), "big"))
        self.kind, self.larger = (int(number) for number in self.rng.integers(0, 16, 2))

    def cannot(self, why: str) -> NotOffered:
        return NotOffered(f"{self.why}: outside of its domain ({why})")

    def laid(self, *, asks_for_a_mean: bool) -> Laid:
        now = self._sizes()
        if asks_for_a_mean and now["m"] > self.was["m"]:
            raise self.cannot("the mean of other keys than its own in a fully masked row")
        if now["b"] * now["h"] * (now["n"] * now["m"] + (now["n"] + now["m"]) * now["d_k"]) > ROOM:
            raise self.cannot("it would be too large there")
        n, m = self.was["n"], self.was["m"]
        in_order = bool({"causal", "window", "slopes"} & self.kwargs.keys())
        contiguous = bool({"window", "slopes"} & self.kwargs.keys())
        if in_order and (n != m or now["n"] != now["m"]):
            raise self.cannot("tokens in an order of their own, as many queries as keys")
        kind = self.kind % 2 if contiguous else self.kind
        keys = places_of(kind, m, now["m"], self.rng)
        queries = keys if n == m and now["n"] == now["m"] else places_of(kind, n, now["n"], self.rng)
        features = places_of(self.kind // 2, self.was["d_k"], now["d_k"], self.rng)
        columns = places_of(self.kind // 3, self.was["d_v"], now["d_v"], self.rng)
        rows, heads = np.arange(self.was["b"]), np.arange(self.was["h"])

        Q, K = self._scaled(now["d_k"])
        Q = _into((now["b"], now["h"], now["n"], now["d_k"]), Q, rows, heads, queries, features)
        groups = np.arange(K.shape[1])
        whole_groups = now["h"] if len(groups) == self.was["h"] else len(groups)
        K = _into((now["b"], whole_groups, now["m"], now["d_k"]), K, rows, groups, keys, features)
        V = _into((now["b"], whole_groups, now["m"], now["d_v"]), self.V, rows, groups, keys, columns)
        mask = self.mask
        if mask is not None:
            mask = self._wider_mask(mask, now, queries, keys)
        elif now["m"] > m:
            self._hide(Q, K, keys, features)
        kwargs = dict(self.kwargs)
        if "bias" in kwargs:
            bias = kwargs["bias"]
            kwargs["bias"] = _wider(bias, _axes(bias), self.was, now, queries, keys, rest=0.0)
        args = (Q, K, V, mask) if self.has_mask_argument else (Q, K, V)
        return Laid(args, kwargs, (rows, heads, queries, columns))

    def _sizes(self) -> dict[str, int]:
        """The smallest sizes that are taken and have room; at times the next ones."""
        now = dict(self.was)
        for axis in ("b", "h", "n", "m", "d_v", "d_k"):
            if self.domain.root(axis) == axis:
                together = [other for other in now if self.domain.root(other) == axis]
                now |= dict.fromkeys(together, self._size(axis, together, hides=now["m"] > self.was["m"] and self.mask is None))
        if now["h"] != self.was["h"] and self.K.shape[1] != self.was["h"]:
            raise self.cannot("grouped heads in a number of heads that it takes")
        return now

    def _size(self, axis: str, together: list[str], *, hides: bool) -> int:
        """A size for an axis and those that equal it; more features than there are, where one hides the other keys."""
        needed = max(self.was[other] for other in together)
        allowed = self.domain.sizes(axis)
        fitting = [size for size in allowed if size >= needed] if allowed is not None else [needed]
        if axis == "d_k":
            if "scale" not in self.kwargs:
                fitting = [size for size in fitting if size in [self.was["d_k"] * 4**k for k in range(7)]]
            fitting = [size for size in fitting if size > self.was["d_k"]] or fitting if hides else fitting
            if hides and allowed is None:
                fitting = [4 * needed]
        if not fitting:
            raise self.cannot(f"no size of {axis} that it could be laid into")
        next_one = {0: 1, 1: 2}.get(self.larger, 0) if axis in "nm" else 0
        return fitting[min(next_one, len(fitting) - 1)]

    def _scaled(self, d_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Q and K such that their products, divided by the root of so many features, are what they were."""
        if "scale" in self.kwargs or d_k == self.was["d_k"]:
            return self.Q, self.K
        factor = round((d_k / self.was["d_k"]) ** 0.5)
        for Q, K in ((factor * self.Q, self.K), (self.Q, factor * self.K)):
            if all(np.abs(X[np.isfinite(X)]).max(initial=0.0) <= BESIDE[self.dtype] for X in (Q, K)):
                return Q, K
        raise self.cannot("numbers too large to be multiplied")

    def _hide(self, Q: np.ndarray, K: np.ndarray, keys: Places, features: Places) -> None:
        """Give all other keys scores that weigh nothing, by a feature of their own."""
        free = np.setdiff1d(np.arange(Q.shape[-1]), features)
        if not free.size or not np.isfinite(self.Q).all():
            raise self.cannot("no feature left to hide the other keys by" if not free.size else "queries that are not finite")
        if self.kwargs.get("softcap") is not None:
            raise self.cannot("capped scores cannot be low enough to hide the other keys")
        given = self.kwargs.get("scale")
        if given == 0:
            raise self.cannot("scores that are all 0")
        scale = Q.shape[-1] ** -0.5 if given is None else given
        with np.errstate(all="ignore"):
            K_of_each_head = np.repeat(self.K, self.Q.shape[1] // self.K.shape[1], axis=1)
            scores = self.Q @ K_of_each_head.swapaxes(-1, -2) * (self.was["d_k"] ** -0.5 if given is None else given)
        bias = self.kwargs.get("bias")
        lowest = _largest(scores) + (0.0 if bias is None else _largest(bias))
        bits = int(np.ceil(np.log2((lowest + NOTHING[self.dtype]) / abs(scale))))
        low, high = 2.0 ** (bits // 2), 2.0 ** (bits - bits // 2)
        if high > BESIDE[self.dtype]:
            raise self.cannot("scores too low to hide the other keys below them")
        others = np.setdiff1d(np.arange(K.shape[2]), keys)
        Q[..., free[-1]] = low
        K[:, :, others, free[-1]] = -high * np.sign(scale)

    def _wider_mask(self, mask: np.ndarray, now: dict[str, int], queries: Places, keys: Places) -> np.ndarray:
        shape = next((pattern for pattern in MASK_AXES if self._may_have(mask, pattern)), "")
        return _wider(mask, shape.split() or _axes(mask), self.was, now, queries, keys, rest=False)

    def _may_have(self, mask: np.ndarray, pattern: str) -> bool:
        return self.domain.masks is not None and pattern in self.domain.masks and matches(pattern, mask.shape, self.was)


def _axes(X: np.ndarray) -> list[str]:
    """The axes of a mask or a bias: 1 where it has one number for all."""
    return [
        axis if length > 1 or axis == "m" else "1" for axis, length in zip(("b", "h", "n", "m")[4 - X.ndim :], X.shape, strict=True)
    ]


def _into(shape: tuple[int, ...], X: np.ndarray, *places: Places) -> np.ndarray:
    whole = np.zeros(shape)
    whole[np.ix_(*places)] = X
    return whole


def _wider(
    X: np.ndarray, axes: list[str], was: dict[str, int], now: dict[str, int], queries: Places, keys: Places, *, rest: Any
) -> np.ndarray:
    """A mask or a bias, of these axes, for the larger scores."""
    if axes[-1:] == ["m"] and X.shape[-1] != was["m"]:
        X = np.repeat(X, was["m"], axis=-1)
    places = [{"n": queries, "m": keys, "1": np.arange(1)}.get(axis, np.arange(was.get(axis, 1))) for axis in axes]
    whole = np.full([now.get(axis, 1) for axis in axes], rest, dtype=X.dtype)
    whole[np.ix_(*places)] = X
    return whole


def _largest(X: np.ndarray) -> float:
    return float(np.abs(X[np.isfinite(X)]).max(initial=0.0))
