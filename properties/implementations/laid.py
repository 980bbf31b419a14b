"""A question laid into a larger shape that an implementation takes, so that what it says of the question is what it must say.

Attention of n queries and m keys of d_k features, laid into N × M × D:

    features   D = 4ᵏ·d_k, the others zero, and Q times 2ᵏ: Q·Kᵀ/√D is what Q·Kᵀ/√d_k was, bit for bit
    keys       the others get scores so low that they weigh exactly nothing, by a feature of their own in which every query is large
               and they alone are not zero; or the mask hides them
    queries    the others are zero but for that feature; their rows are nobody's

    heads      a group of query heads lies in a group of as many or more, and the key head it reads in the one that group reads

    backward   other queries see all keys and have a dO of zeros, so nothing is learnt from them; dO is as many times as large as Q
               or K is, since their gradients are that much smaller

Where in the shape the tokens lie differs from one set of sizes to another: at the front, at the end, scattered, or at the edges
of blocks. The order of tokens is kept, and where an option asks for it, so is where each query stands among the keys: both
sequences are continued behind their common beginning, or before their common end, as `causal_alignment` has it.

Rows of other steps are laid in `laid_rows`.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from properties.implementations.domain import MASK_AXES, Domain, matches, sizes_of
from properties.implementations.laid_rows import ATTENTION, larger_rows
from properties.implementations.places import ROOM, Laid, Part, Places, places_of
from properties.verdicts import NotOffered

NOTHING = {"float64": 1024.0, "float32": 256.0, "bfloat16": 256.0, "float16": 256.0}
"""How far below the lowest score one is whose exponential is 0, in the dtype and in what it is accumulated in."""

BESIDE = {"float64": 2.0**1000, "float32": 2.0**120, "bfloat16": 2.0**120, "float16": 2.0**15}  # numbers that are still taken


def laid(
    domain: Domain | None,
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    dtype: str,
    alignment: str | None = None,
    asks_for_a_mean: bool = False,
) -> Laid:
    """The call as it can be asked within the domain. Raises NotOffered where it cannot be.

    `alignment`: the convention `causal_alignment`; None: not known yet. `asks_for_a_mean`: some query is fully masked, and gets the
    mean of V, which of more keys is another; or a row of softmax, and gets the mean of as many.
    """
    if not domain:
        return Laid(args, kwargs)
    sizes = sizes_of(step, args, kwargs)
    if domain.steps is not None and step not in domain.steps:
        return Laid(args, kwargs)
    backward = step in ATTENTION and step != "attention"
    domain.must_take(step, args[3 + backward :][:1] if step in ATTENTION else [], sizes)
    why = domain.why_not(step, sizes)
    if not why:
        return Laid(args, kwargs)
    if 0 in sizes.values():
        raise NotOffered(f"{why}: outside of its domain")
    if step not in ATTENTION:
        return larger_rows(domain, step, args, kwargs, why, asks_for_a_mean=asks_for_a_mean)
    attention = _Attention(domain, sizes, args[backward:], kwargs, dtype=dtype, alignment=alignment, why=why)
    return attention.backward(args[0]) if backward else attention.laid(asks_for_a_mean=asks_for_a_mean)


class _Larger(NamedTuple):
    """The larger question, where the smaller one lies in each of its arrays, and how many times as large it is there."""

    Q: np.ndarray
    K: np.ndarray
    V: np.ndarray
    mask: np.ndarray | None
    kwargs: dict[str, Any]
    in_Q: tuple[Places, ...]
    in_K: tuple[Places, ...]
    in_V: tuple[Places, ...]
    in_output: tuple[Places, ...]
    times_Q: float
    times_K: float


class _Attention:
    """One attention on its way into a larger shape."""

    def __init__(
        self,
        domain: Domain,
        sizes: dict[str, int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        dtype: str,
        alignment: str | None,
        why: str,
    ) -> None:
        self.domain, self.was, self.kwargs, self.dtype, self.alignment, self.why = domain, sizes, kwargs, dtype, alignment, why
        self.Q, self.K, self.V, *masks = args
        self.mask = masks[0] if masks else None
        self.has_mask_argument = len(args) > 3
        self.capped = kwargs.get("softcap") is not None and self.mask is None
        self.by_bias = self.capped and "bias" in kwargs  # the other keys are hidden by −∞, which is added behind the cap
        shape = [sizes[axis] for axis in ("n", "m", "d_k", "d_v")]
        self.rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(repr(shape).encode(), digest_size=4).digest(), "big"))
        self.kind, self.larger = (int(number) for number in self.rng.integers(0, 16, 2))

    def cannot(self, why: str) -> NotOffered:
        return NotOffered(f"{self.why}: outside of its domain ({why})")

    def laid(self, *, asks_for_a_mean: bool) -> Laid:
        """The forward."""
        now = self._sizes()
        if asks_for_a_mean and now["m"] > self.was["m"]:
            raise self.cannot("the mean of other keys than its own in a fully masked row")
        larger = self._larger_question(now, others_see=False)
        return Laid(self._args(larger), larger.kwargs, (Part(larger.in_output),))

    def backward(self, dO: np.ndarray) -> Laid:
        """The gradients, given that of the output; one that is asked for alone is named by `of`."""
        larger = self._larger_question(self._sizes(), others_see=True)
        times = self._times_dO(dO, max(larger.times_Q, larger.times_K))
        dO = _into((*larger.Q.shape[:-1], larger.V.shape[-1]), times * dO, *larger.in_output)
        parts = {
            "Q": Part(larger.in_Q, larger.times_Q / times),
            "K": Part(larger.in_K, larger.times_K / times),
            "V": Part(larger.in_V, 1.0 / times),
        }
        wanted = [self.kwargs["of"]] if "of" in self.kwargs else list(parts)
        return Laid((dO, *self._args(larger)), larger.kwargs, tuple(parts[name] for name in wanted))

    def _args(self, larger: _Larger) -> tuple[np.ndarray | None, ...]:
        return (*larger[:3], larger.mask) if self.has_mask_argument else larger[:3]

    def _times_dO(self, dO: np.ndarray, times: float) -> float:
        """How many times dO can be as large without a gradient that overflows."""
        rows = max(_largest(self.Q) * self.was["n"], _largest(self.K) * self.was["m"], self.was["n"])
        largest = 2.0 * times * _largest(dO) * self.was["d_v"] * max(_largest(self.V), 1.0) * max(rows, 1.0)
        if largest <= BESIDE[self.dtype]:
            return times
        if times > 1 and self.dtype == "float16":
            raise self.cannot("gradients that would be too small or too large there")
        return 1.0

    def _larger_question(self, now: dict[str, int], *, others_see: bool) -> _Larger:
        """`others_see`: queries that nobody asked about attend to all keys; else to those that the mask leaves them, if any."""
        if now["b"] * now["h"] * (now["n"] * now["m"] + (now["n"] + now["m"]) * now["d_k"]) > ROOM:
            raise self.cannot("it would be too large there")
        queries, keys = self._tokens(now)
        features = places_of(self.kind // 2, self.was["d_k"], now["d_k"], self.rng)
        columns = places_of(self.kind // 3, self.was["d_v"], now["d_v"], self.rng)
        heads, groups, whole_groups = self._heads(now["h"])
        rows = np.arange(self.was["b"])
        places = {"b": rows, "h": heads, "n": queries, "m": keys}

        Q, K, times_Q, times_K = self._scaled(now["d_k"])
        Q = _into((now["b"], now["h"], now["n"], now["d_k"]), Q, rows, heads, queries, features)
        K = _into((now["b"], whole_groups, now["m"], now["d_k"]), K, rows, groups, keys, features)
        V = _into((now["b"], whole_groups, now["m"], now["d_v"]), self.V, rows, groups, keys, columns)
        mask = self.mask
        if mask is not None:
            mask = self._wider_mask(mask, now, places)
            if others_see and mask.ndim > 1 and mask.shape[-2] > 1:
                mask[..., np.setdiff1d(np.arange(now["n"]), queries), :] = True
        elif now["m"] > self.was["m"] and not self.by_bias:
            self._hide(Q, K, keys, features)
        kwargs = dict(self.kwargs)
        if "bias" in kwargs:
            bias = kwargs["bias"]
            kwargs["bias"] = _wider(bias, _axes(bias), self.was, now, places, rest=-np.inf if self.by_bias else 0.0)
        if "dropout_mask" in kwargs:
            kwargs["dropout_mask"] = _into((now["b"], now["h"], now["n"], now["m"]), kwargs["dropout_mask"], *places.values()) > 0
        for name in {"sinks", "slopes"} & kwargs.keys():
            kwargs[name] = _into((now["h"],), kwargs[name], heads)
        in_Q, in_K, in_V = (rows, heads, queries, features), (rows, groups, keys, features), (rows, groups, keys, columns)
        return _Larger(Q, K, V, mask, kwargs, in_Q, in_K, in_V, (rows, heads, queries, columns), times_Q, times_K)

    def _tokens(self, now: dict[str, int]) -> tuple[Places, Places]:
        """Where the queries lie and where the keys, such that each query stands where it stood among the keys."""
        n, m = self.was["n"], self.was["m"]
        contiguous = bool({"window", "slopes"} & self.kwargs.keys())
        kind = self.kind % 2 if contiguous else self.kind
        if n == m and now["n"] == now["m"]:
            both = places_of(kind, n, now["n"], self.rng)
            return both, both
        if not contiguous and "causal" not in self.kwargs:
            return places_of(kind, n, now["n"], self.rng), places_of(kind, m, now["m"], self.rng)
        if self.alignment is None:
            raise self.cannot("where the first query stands among more or fewer keys is not known yet")
        longer, room = max(n, m), min(now["n"], now["m"])
        both = places_of(kind, longer, room, self.rng) if longer <= room else np.arange(longer)
        if self.alignment == "top_left":
            return both[:n], both[:m]
        behind = max(longer, room)  # counted from the end, which both sequences have in common
        return both[longer - n :] + now["n"] - behind, both[longer - m :] + now["m"] - behind

    def _heads(self, count: int) -> tuple[Places, Places, int]:
        """Where query heads lie among so many, where the key heads they read, and among how many."""
        h, g = self.was["h"], self.K.shape[1]
        if count == h:
            return np.arange(h), np.arange(g), g
        group = next((size for size in range(h // g, count + 1) if count % size == 0 and count // size >= g), 0)
        if not group:
            raise self.cannot(f"{g} groups of {h // g} heads in {count} heads")
        i = np.arange(h)
        return i // (h // g) * group + i % (h // g), np.arange(g), count // group

    def _sizes(self) -> dict[str, int]:
        """The smallest sizes that are taken and have room; at times the next ones."""
        now = dict(self.was)
        by_feature = self.mask is None and not self.by_bias
        for axis in ("b", "h", "n", "m", "d_v", "d_k"):
            if self.domain.root(axis) == axis:
                together = [other for other in now if self.domain.root(other) == axis]
                now |= dict.fromkeys(together, self._size(axis, together, hides=now["m"] > self.was["m"] and by_feature))
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
        next_one = {0: 1, 1: 2}.get(self.larger, 0) if axis in "nm" and not self.capped else 0
        return fitting[min(next_one, len(fitting) - 1)]

    def _scaled(self, d_k: int) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Q and K such that their products, divided by the root of so many features, are what they were; and their factors."""
        if "scale" in self.kwargs or d_k == self.was["d_k"]:
            return self.Q, self.K, 1.0, 1.0
        factor = float(round((d_k / self.was["d_k"]) ** 0.5))
        for times_Q, times_K in ((factor, 1.0), (1.0, factor)):
            Q, K = times_Q * self.Q, times_K * self.K
            if all(_largest(X) <= BESIDE[self.dtype] for X in (Q, K)):
                return Q, K, times_Q, times_K
        raise self.cannot("numbers too large to be multiplied")

    def _hide(self, Q: np.ndarray, K: np.ndarray, keys: Places, features: Places) -> None:
        """Give all other keys scores that weigh nothing, by a feature of their own."""
        free = np.setdiff1d(np.arange(Q.shape[-1]), features)
        if not free.size or not np.isfinite(self.Q).all():
            raise self.cannot("no feature left to hide the other keys by" if not free.size else "queries that are not finite")
        if self.capped:
            # No score is below −c, so another key keeps a weight of e^(−2c) at least: without a mask and a bias nothing hides it.
            # Such questions are drawn with as many keys as are taken (`domain.as_many_keys_as_are_taken`).
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
        lowest += _largest(self.kwargs.get("slopes", np.zeros(1))) * max(Q.shape[2], K.shape[2])
        bits = int(np.ceil(np.log2((lowest + NOTHING[self.dtype]) / abs(scale))))
        low, high = 2.0 ** (bits // 2), 2.0 ** (bits - bits // 2)
        if high > BESIDE[self.dtype]:
            raise self.cannot("scores too low to hide the other keys below them")
        others = np.setdiff1d(np.arange(K.shape[2]), keys)
        Q[..., free[-1]] = low
        K[:, :, others, free[-1]] = -high * np.sign(scale)

    def _wider_mask(self, mask: np.ndarray, now: dict[str, int], places: dict[str, Places]) -> np.ndarray:
        shape = next((pattern for pattern in MASK_AXES if self._may_have(mask, pattern)), "")
        return _wider(mask, shape.split() or _axes(mask), self.was, now, places, rest=False)

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
    X: np.ndarray, axes: list[str], was: dict[str, int], now: dict[str, int], places: dict[str, Places], *, rest: Any
) -> np.ndarray:
    """A mask or a bias, of these axes, for the larger scores."""
    if axes[-1:] == ["m"] and X.shape[-1] != was["m"]:
        X = np.repeat(X, was["m"], axis=-1)
    whole = np.full([now.get(axis, 1) for axis in axes], rest, dtype=X.dtype)
    whole[np.ix_(*(places.get(axis, np.arange(1)) for axis in axes))] = X
    return whole


def _largest(X: np.ndarray) -> float:
    return float(np.abs(X[np.isfinite(X)]).max(initial=0.0))
