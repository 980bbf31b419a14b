"""What is a choice and not a fault: an implementation declares its conventions, and what it leaves open is found out by probes.

The oracle knows one convention of each kind (`OURS`). Between it and an implementation of another stand translations: of the
arguments the implementation is called with (`asked`), of its answer (`answered`), and of the question to the oracle (`posed`).
Which GELU is meant is no convention here: it is an argument of the steps. The probes are in `convention_probes`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from properties.verdicts import NotOffered


@dataclass(frozen=True)
class Convention:
    """What there is to choose, and what each choice means; `allows` is the choice, if any, that permits the others too."""

    what: str
    choices: Mapping[str, str]
    allows: str | None = None


LOWEST = -(2.0**13)  # a score of 0 with −10⁴ added, or the least number of a dtype, is below; no score of a sensible row is

CONVENTIONS: dict[str, Convention] = {
    "mask_polarity": Convention(
        "True, or a number, in a mask",
        {
            "true_attends": "True = attend",
            "true_masks": "True = masked",
            "integer": "1 = attend, 0 = masked",
            "additive": "added to scores",
        },
    ),
    "causal_alignment": Convention(
        "causal mask where n ≠ m",
        {"top_left": "both sequences begin with the same token", "bottom_right": "both sequences end with the same token"},
    ),
    "fully_masked_row": Convention("attention of a fully masked row", {"zeros": "zeros", "nan": "NaN", "mean": "the mean of V"}),
    "fully_masked_softmax": Convention("softmax of a row of −∞", {"zeros": "zeros", "nan": "NaN", "mean": "equal weights"}),
    "eps": Convention("eps of LayerNorm", {"inside": "√(variance + eps)", "outside": "√variance + eps"}),
    "layout": Convention(
        "columns of the positional encoding", {"interleaved": "sine and cosine in turn", "halves": "all sines, then all cosines"}
    ),
    "non_finite_behind_mask": Convention(
        "NaN or ∞ in a masked value", {"leaks": "0·NaN = NaN reaches the row", "blocked": "the row does not see it"}
    ),
    "subnormals": Convention(
        "subnormal numbers", {"kept": "kept", "flushed": "may become 0, in arguments, on the way and in results"}, allows="flushed"
    ),
    "out_of_range_token": Convention(
        "token id outside of the vocabulary",
        {"refused": "raises", "wraps": "−1 is the last row, beyond the last raises", "computed": "some row is returned"},
    ),
    "odd_d_model": Convention("positional encoding of an odd d_model", {"refused": "raises", "computed": "is returned"}),
    "non_finite_masked_key": Convention(
        "NaN or ∞ in a masked key",
        {"leaks": "a score of NaN, to which −∞ is added, may make the row NaN", "blocked": "the row does not see it"},
        allows="leaks",
    ),
    "log_sum_exp_base": Convention("logarithm of a returned log-sum-exp", {"natural": "to base e", "two": "to base 2"}),
    "fully_masked_log_sum_exp": Convention(
        "log-sum-exp of a fully masked row",
        {"minus_infinity": "−∞", "plus_infinity": "+∞", "nan": "NaN", "lowest": f"a finite number below {LOWEST:g}"},
    ),
    "sequence_without_keys": Convention(
        "packed or paged attention of a query that has no key to attend to",
        {"zeros": "zeros", "nan": "NaN", "unspecified": "anything"},
        allows="unspecified",
    ),
    "corrupt_indices": Convention(
        "cumulative lengths, lengths and block tables that are impossible",
        {"refused": "raises", "unchecked": "some are not checked, and something is returned"},
        allows="unchecked",
    ),
}
"""By name, in the order of the fields of `Conventions`."""

CHOICES: dict[str, tuple[str, ...]] = {name: tuple(convention.choices) for name, convention in CONVENTIONS.items()}


@dataclass(frozen=True)
class Conventions:
    """What an implementation says of itself, one of `CHOICES` for each; None is left open, and found out.

    The polarity of masks is not open unless it is said to be: the signature of the steps names it. Raises ValueError for a
    choice that is not one of `CHOICES`.
    """

    mask_polarity: str | None = "true_attends"
    causal_alignment: str | None = None
    fully_masked_row: str | None = None
    fully_masked_softmax: str | None = None
    eps: str | None = None
    layout: str | None = None
    non_finite_behind_mask: str | None = None
    subnormals: str | None = None
    out_of_range_token: str | None = None
    odd_d_model: str | None = None
    non_finite_masked_key: str | None = None
    log_sum_exp_base: str | None = None
    fully_masked_log_sum_exp: str | None = None
    sequence_without_keys: str | None = None
    corrupt_indices: str | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")


OURS = Conventions(
    "true_attends",
    "top_left",
    "zeros",
    "zeros",
    "inside",
    "interleaved",
    "leaks",
    "kept",
    "refused",
    "refused",
    "blocked",
    "natural",
    "minus_infinity",
    "zeros",
    "refused",
)
"""The oracle's."""


# Translation ----------------------------------------------------------------------------------------------------------

MASKED = {
    "attention": 3,
    "multi_head": 2,
    "multi_head_with_weights": 2,
    "encoder_layer": 1,
    "encoder": 1,
    "decoder_layer": 2,
    "decoder": 2,
    "log_sum_exp": 2,
    "attention_backward": 4,
    "attention_gradient": 4,
}
"""Where the first mask of a step stands among its arguments; whatever follows it is a mask too."""

LAYERS = ("multi_head", "multi_head_with_weights")
"""Steps of all heads at once, from features to features."""

BURIED = {
    "eps": (
        *("encoder_layer", "encoder", "decoder_layer", "decoder", "transformer", "generation", "gradients"),
        "layer_norm_backward",
    ),
    "layout": ("transformer", "generation", "gradients"),
}
"""Steps that use a convention inside, where no translation of their answer reaches."""


def asked(
    step: str, args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `step` as an implementation of these conventions wants them. Raises NotOffered where none would do."""
    for name, steps in BURIED.items():
        if step in steps and getattr(conventions, name) not in (None, getattr(OURS, name)):
            raise NotOffered(f"{step} with {name} = {getattr(conventions, name)}: the oracle has no such {step}")
    if step not in MASKED or conventions.mask_polarity == "true_attends":
        return args, kwargs
    first = MASKED[step]
    masks = tuple(_mask_as(conventions.mask_polarity, mask) for mask in args[first:])
    named = {name: _mask_as(conventions.mask_polarity, value) for name, value in kwargs.items() if name in ("mask", "memory_mask")}
    return (*args[:first], *masks), {**kwargs, **named}


def _mask_as(polarity: str | None, mask: np.ndarray | None) -> np.ndarray | None:
    if mask is None:
        return None
    match polarity:
        case "true_masks":
            return np.asarray(~mask)  # of a single truth value, too
        case "integer":
            return mask.astype(np.int64)
        case _:
            return np.where(mask, 0.0, -np.inf)


def answered(step: str, answer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> Any:
    """An answer of an implementation of these conventions, as one of ours would have given it.

    Where a fully masked row is NaN by declaration, NaN becomes 0 there, and anything else NaN.
    """
    match step:
        case "mask" if conventions.mask_polarity == "true_masks":
            return ~answer
        case "positional_encoding" if conventions.layout == "halves" and answer.shape[1] % 2 == 0:
            sines, cosines = np.split(answer, 2, axis=1)
            return np.stack([sines, cosines], axis=-1).reshape(answer.shape)
        case "softmax" if conventions.fully_masked_softmax == "nan":
            return np.where(_fully_masked_scores(args[0]), np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "attention" if conventions.fully_masked_row == "nan":
            return np.where(fully_masked(args, kwargs, conventions), np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "layer_norm" | "residual_norm" if conventions.eps == "outside":
            spread = np.std(sum(args), axis=-1, keepdims=True)
            eps, bias = kwargs.get("eps", 1e-5), kwargs["bias"]
            return (answer - bias) * (spread + eps) / np.sqrt(spread**2 + eps) + bias
        case "log_sum_exp":
            return _natural(answer, fully_masked_scores_of(args), conventions)
        case "packed_attention" | "paged_attention" | "cached_attention":
            return _of_ours(answer, without_keys(step, args, kwargs, conventions), conventions)
        case _:
            return answer


def _natural(answer: np.ndarray, fully_masked: np.ndarray, conventions: Conventions) -> np.ndarray:
    """A log-sum-exp to base e, and −∞ where a row is fully masked and the answer is what is declared of it; NaN if it is not."""
    natural = answer * np.log(2.0) if conventions.log_sum_exp_base == "two" else answer
    match conventions.fully_masked_log_sum_exp:
        case "plus_infinity":
            as_declared = answer == np.inf
        case "nan":
            as_declared = np.isnan(answer)
        case "lowest":
            as_declared = np.isfinite(answer) & (answer < LOWEST)
        case _:
            return natural
    return np.where(fully_masked, np.where(as_declared, -np.inf, np.nan), natural)


def _of_ours(answer: np.ndarray, alone: np.ndarray, conventions: Conventions) -> np.ndarray:
    """The answer with zeros for the queries that have no keys, where it is what is declared of them; NaN where it is not."""
    match conventions.sequence_without_keys:
        case "nan":
            return np.where(alone, np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "unspecified":
            return np.where(alone, 0.0, answer)
        case _:
            return answer


def fully_masked_scores_of(args: tuple[Any, ...]) -> np.ndarray:
    """Which of the queries of a log-sum-exp (b, h, n) is fully masked."""
    Q, K, *masks = args
    return fully_masked((Q, K, None, *masks), {}, OURS)[..., 0]


def without_keys(step: str, args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> np.ndarray:
    """Which queries of packed (t, 1, 1), paged or cached (b, 1, n, 1) attention have no key to attend to."""
    if step != "packed_attention":
        n, lengths = args[0].shape[2], np.asarray(kwargs["lengths"])[:, None]
        first = np.maximum(lengths - args[1].shape[2], 0) if kwargs.get("ring") else 0  # position that a ring still holds
        return (lengths - n + np.arange(n) < first)[:, None, :, None]
    first, queries = _starts_and_lengths(kwargs["cu_seqlens_q"])
    _, keys = _starts_and_lengths(kwargs["cu_seqlens_k"])
    offset = keys - queries if conventions.causal_alignment == "bottom_right" and kwargs.get("causal") else 0 * keys
    alone = np.zeros(len(args[0]), dtype=bool)
    for start, n, m, off in zip(first, queries, keys, offset, strict=False):  # impossible lengths may be of any number
        alone[max(start, 0) : max(start + n, 0)] = (m <= 0) | (np.arange(len(alone[max(start, 0) : max(start + n, 0)])) + off < 0)
    return alone[:, None, None]


def _starts_and_lengths(cu_seqlens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cu_seqlens[:-1], np.diff(cu_seqlens)


def posed(
    step: str, args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The question to which the oracle's answer is what an implementation of these conventions should say to `args` and `kwargs`.

    To give the mean to a fully masked query is to let it look everywhere, with no preference.
    """
    if step == "softmax" and conventions.fully_masked_softmax == "mean":
        return (np.where(_fully_masked_scores(args[0]), 0.0, args[0]),), kwargs
    if step == "packed_attention" and kwargs.get("causal"):
        return args, {**kwargs, "alignment": conventions.causal_alignment or OURS.causal_alignment}
    if step in LAYERS and kwargs.get("causal") and conventions.causal_alignment == "bottom_right":
        return args, {**kwargs, "offset": args[1].shape[1] - args[0].shape[1]}
    if step != "attention":
        return args, kwargs
    if conventions.fully_masked_row == "mean" and (none_seen := fully_masked(args, kwargs, conventions)).any():
        return _with_the_mean(args, kwargs, conventions, none_seen)
    if (offset := _offset(args, kwargs, conventions)) != 0:
        return args, kwargs | {"offset": offset}
    return args, kwargs


def _with_the_mean(
    args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions, none_seen: np.ndarray
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same question, in which the queries (b, h, n, 1) that see no key score 0 with every key, and see them all."""
    Q, K, V = args[:3]
    others = {name: value for name, value in kwargs.items() if name not in ("causal", "window", "bias", "slopes")}
    if "bias" in kwargs or "slopes" in kwargs:
        others["bias"] = np.where(none_seen, 0.0, kwargs.get("bias", 0.0) - _penalties(args, kwargs, conventions))
    return (np.where(none_seen, 0.0, Q), K, V, visible(args, kwargs, conventions) | none_seen), others


def causal(n: int, m: int, conventions: Conventions) -> np.ndarray:
    """The causal mask, True = attend: with n ≠ m both sequences begin at the same token, or end at the same token."""
    return np.tri(n, m, m - n if conventions.causal_alignment == "bottom_right" else 0, dtype=bool)


def seen_by_heads(args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> np.ndarray:
    """Which tokens of M each token of X attends to in a call of one of `LAYERS`, (b, h, n, m): by the mask and by `causal`."""
    X, M, *masks = args
    (b, n), m = X.shape[:2], M.shape[1]
    seen = np.broadcast_to(True if not masks or masks[0] is None else masks[0], (b, kwargs["h"], n, m))
    return seen & causal(n, m, conventions) if kwargs.get("causal") else seen


def _fully_masked_scores(scores: np.ndarray) -> np.ndarray:
    return (scores == -np.inf).all(axis=-1, keepdims=True)


# What the options of attention hide -----------------------------------------------------------------------------------


def visible(args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> np.ndarray:
    """Which keys each query of a call of `attention` attends to, (b, h, n, m): by the mask, the options and a bias of −∞."""
    Q, K, _, *masks = args
    n, m = Q.shape[-2], K.shape[-2]
    seen = np.broadcast_to(True if not masks or masks[0] is None else masks[0], (*Q.shape[:-1], m))
    ahead = np.arange(m) - np.arange(n)[:, None] - _offset(args, kwargs, conventions)
    left, right = kwargs.get("window") or (None, None)
    for hidden in (
        ahead > 0 if kwargs.get("causal") else None,
        None if left is None else ahead < -left,
        None if right is None else ahead > right,
        None if kwargs.get("bias") is None else kwargs["bias"] == -np.inf,
    ):
        seen = seen if hidden is None else seen & ~hidden
    return seen


def fully_masked(args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> np.ndarray:
    """Which of the queries (b, h, n, 1) sees nothing. One that has a sink sees that."""
    none_seen = np.asarray(~visible(args, kwargs, conventions).any(axis=-1, keepdims=True))
    return none_seen if kwargs.get("sinks") is None else none_seen & (kwargs["sinks"] == -np.inf)[:, None, None]


def _offset(args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> int:
    """At which key the first query stands, where an option asks for it."""
    placed = kwargs.get("causal") or kwargs.get("window") is not None or kwargs.get("slopes") is not None
    return args[1].shape[-2] - args[0].shape[-2] if placed and conventions.causal_alignment == "bottom_right" else 0


def _penalties(args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> np.ndarray | float:
    """slope·|i − j| for every head, query and key; 0 without slopes."""
    if kwargs.get("slopes") is None:
        return 0.0
    n, m = args[0].shape[-2], args[1].shape[-2]
    distances = np.abs(np.arange(n)[:, None] + _offset(args, kwargs, conventions) - np.arange(m))
    return kwargs["slopes"][:, None, None] * distances
