"""Attention with options: the cases and the correct variants of it.

Each case is a row of the covering array of `inputs.attention_options`, row after row, so that every two options meet; lengths and
numbers are drawn as for the other steps, up to 48 tokens.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from properties.evaluation.baseline_rules import Case
from properties.evaluation.calibration import variants as plain
from properties.evaluation.calibration.cases import Draw
from properties.evaluation.calibration.low_precision import LowPrecision
from properties.evaluation.correct.attention_with_options import attention as in_one_width
from properties.implementations.conventions import OURS, visible
from properties.inputs.attention_options import HEADS, SHARES, Row, covering
from properties.inputs.parameters import Nested
from properties.verdicts import NotOffered

MOST = 48  # tokens


# Cases ----------------------------------------------------------------------------------------------------------------


def option_case(dtype: str, seed: int, number: int) -> Case:
    """The case of that number: the options of one row of the covering array, with values and inputs from the seed."""
    draw, row = Draw(seed, number, dtype=dtype), covering()[number % len(covering())]
    h, g = HEADS[bool(row["grouped_heads"])][draw.rng.integers(3)]
    short, long = sorted((draw.size(1, MOST), draw.size(1, MOST)))
    n, m = {"n = m": (long, long), "n < m": (short, long), "n > m": (long, short)}[row["lengths"]]
    d, magnitude = draw.size(1, 16), float(draw.rng.choice((0.5, 1.0, 2.0)))
    Q, K = draw.numbers(1, h, n, d, magnitude=magnitude), draw.numbers(1, g, m, d)
    mask = draw.mask(n, m) if row["mask"] else None
    return Case("attention", (Q, K, draw.features(1, g, m, d), mask), _values(row, draw, h, n, m), dtype)


def _values(row: Row, draw: Draw, h: int, n: int, m: int) -> Nested:
    """A value of each option that is on; scores stay moderate, as everywhere in a calibration."""
    rng, made = draw.rng, {}
    if row["causal"]:
        made["causal"] = True
    if row["scale"]:
        made["scale"] = float(rng.choice((0.5, 0.375, 1.0, 0.125)))
    if row["bias"]:
        bias = draw.numbers(*((h, n, m) if rng.random() < 0.5 else (n, m)), magnitude=2.0)
        made["bias"] = np.where(rng.random(bias.shape) < 0.25, -np.inf, bias) if rng.random() < 0.5 else bias
    if row["window"]:
        made["window"] = (int(rng.integers(0, n + 1)), int(rng.integers(0, m + 1)) if row["window"] == "both" else None)
    if row["softcap"]:
        made["softcap"] = float(rng.choice((0.75, 2.0, 8.0)))
    if row["sinks"]:
        made["sinks"] = draw.numbers(h, magnitude=2.0)
    if row["slopes"]:
        made["slopes"] = 2.0 ** -rng.permutation(np.arange(1, h + 1))
    if row["dropout_mask"]:
        made["dropout_mask"], made["dropout_p"] = rng.random((1, h, n, m)) < 0.75, float(rng.choice(SHARES))
    return made


# Variants -------------------------------------------------------------------------------------------------------------


class WithOptions(LowPrecision):
    """`LowPrecision` whose attention has the options: each matrix of its formula is stored where the mode is eager."""

    def attention(
        self,
        Q: np.ndarray,
        K: np.ndarray,
        V: np.ndarray,
        mask: Any = None,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        bias: np.ndarray | None = None,
        slopes: np.ndarray | None = None,
        sinks: np.ndarray | None = None,
        dropout_mask: np.ndarray | None = None,
        dropout_p: float = 0.0,
        **hiding: Any,
    ) -> np.ndarray:
        """Query heads that share a key head read it one after another; a sink is one more key, whose value is 0."""
        given = {"bias": bias} | hiding
        seen = visible((Q, K, V, mask), {name: value for name, value in given.items() if value is not None}, OURS)
        Q, K, V = self.given(Q), *(np.repeat(self.given(X), Q.shape[1] // K.shape[1], axis=1) for X in (K, V))
        n, m = Q.shape[2], K.shape[2]
        factor = self.inside(1 / np.sqrt(Q.shape[-1]) if scale is None else scale)
        if self.scale_queries:
            scores = self.named(self.product(Q * factor, K.swapaxes(-1, -2)))
        else:
            scores = self.named(self.named(self.product(Q, K.swapaxes(-1, -2))) * factor)
        if softcap is not None:
            cap = self.inside(softcap)
            scores = self.named(cap * np.tanh(scores / cap))
        if bias is not None:
            scores = self.named(scores + self.given(bias))
        if slopes is not None:
            distances = np.abs(np.arange(n)[:, None] - np.arange(m)).astype(self.inside)
            scores = self.named(scores - self.named(self.given(slopes)[:, None, None] * distances))
        scores = np.where(seen, scores, self.inside(-np.inf))
        if sinks is not None:
            sink = np.broadcast_to(self.given(sinks)[:, None, None], (*scores.shape[:-1], 1))
            scores, V = np.concatenate([scores, sink], axis=-1), np.pad(V, ((0, 0), (0, 0), (0, 1), (0, 0)))
        rounded = self.cast_weights or self.mode == "eager"
        if dropout_mask is not None:
            return self._dropped_out(scores, V, dropout_mask, self.inside(1 / (1 - dropout_p)), cast=rounded)
        if self.softmax_style == "online":
            return self.result(self._online(scores, V, cast=rounded))
        weights = self._weights(scores)
        return self.result(self.product(self.stored(weights) if rounded else weights, V))

    def _dropped_out(self, scores: np.ndarray, V: np.ndarray, kept: np.ndarray, factor: Any, *, cast: bool) -> np.ndarray:
        """The factor of what is kept is applied to the weights, or where the softmax is online to what they add up to."""
        weights = self._weights(scores)
        kept = np.pad(kept, ((0, 0), (0, 0), (0, 0), (0, scores.shape[-1] - kept.shape[-1])))  # a sink says nothing in any case
        zero = self.inside(0.0)
        if self.softmax_style == "online":
            weights = np.where(kept, weights, zero)
            return self.result(self.product(self.stored(weights) if cast else weights, V) * factor)
        weights = np.where(kept, self.named(weights) * factor, zero)
        return self.result(self.product(self.stored(weights) if cast else weights, V))


def _ours(choices: dict[str, Any], step: str, args: tuple[Any, ...], kwargs: Nested, dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return getattr(WithOptions(dtype, **choices), step)(*args, **kwargs)


def _torch(run: Callable[..., torch.Tensor], _: str, args: tuple[Any, ...], kwargs: Nested, dtype: str) -> np.ndarray:
    """A function of torch tensors of the dtype."""
    given = [plain.as_tensor(value, dtype) for value in args]
    with torch.no_grad():
        answer = run(*given, **{name: plain.as_tensor(value, dtype) for name, value in kwargs.items()})
    return answer.to(torch.float64).numpy()


def _stored(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None, **options: Any) -> torch.Tensor:
    """Torch's operators, each of which rounds to the dtype; a cap is of scores in float32, as models have it."""
    K, V = (X.repeat_interleave(Q.shape[1] // X.shape[1], dim=1) for X in (K, V))
    scale, cap = options.get("scale"), options.get("softcap")
    scores = Q @ K.mT * (Q.shape[-1] ** -0.5 if scale is None else scale)
    if cap is not None:
        scores = (cap * torch.tanh(scores.float() / cap)).to(Q.dtype)
    if "bias" in options:
        scores = scores + options["bias"]
    ahead = torch.arange(K.shape[2]) - torch.arange(Q.shape[2])[:, None]
    if "slopes" in options:
        scores = scores - options["slopes"][:, None, None] * ahead.abs().to(Q.dtype)
    left, right = options.get("window", (None, None))
    hidden = (ahead > 0) & bool(options.get("causal")) | (ahead > (ahead.max() if right is None else right))
    hidden = hidden | (ahead < (ahead.min() if left is None else -left))
    scores = scores.masked_fill(hidden if mask is None else hidden | ~mask, -torch.inf)
    if "sinks" in options:
        scores = torch.cat([scores, options["sinks"][:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1).nan_to_num(0.0)[..., : K.shape[2]]
    if "dropout_mask" in options:
        weights = weights * options["dropout_mask"] / (1 - options["dropout_p"])
    return weights @ V


def _of_the_library(variant: plain.Variant, step: str, args: tuple[Any, ...], kwargs: Nested, dtype: str) -> np.ndarray:
    """Torch's own, where it has all of the options that the case asks for."""
    if not kwargs.keys() <= {"causal", "scale", "bias"}:
        raise NotOffered
    return variant(step, args, kwargs, dtype)


@cache
def option_variants() -> dict[str, plain.Variant]:
    """Every variant by name: the numpy ones with each of their choices, flash-like ones among them, and torch's."""
    found: dict[str, plain.Variant] = {f"numpy, {name}": partial(_ours, choices) for name, choices in plain.CHOICES.items()}
    found["torch, in float32"] = partial(_torch, in_one_width)
    found["torch, by hand"] = partial(_torch, _stored)
    sdpa = {name: variant for name, variant in plain.correct_variants(compiled=False).items() if name.startswith("torch.sdpa")}
    return found | {name: partial(_of_the_library, variant) for name, variant in sdpa.items()}
