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

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")


OURS = Conventions(
    "true_attends", "top_left", "zeros", "zeros", "inside", "interleaved", "leaks", "kept", "refused", "refused", "blocked"
)
"""The oracle's."""


# Translation ----------------------------------------------------------------------------------------------------------

MASKED = {
    "attention": 3,
    "multi_head": 2,
    "encoder_layer": 1,
    "encoder": 1,
    "decoder_layer": 2,
    "decoder": 2,
    "attention_backward": 4,
    "attention_gradient": 4,
}
"""Where the first mask of a step stands among its arguments; whatever follows it is a mask too."""

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
            return np.where(_fully_masked_queries(args), np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "layer_norm" | "residual_norm" if conventions.eps == "outside":
            spread = np.std(sum(args), axis=-1, keepdims=True)
            eps, bias = kwargs.get("eps", 1e-5), kwargs["bias"]
            return (answer - bias) * (spread + eps) / np.sqrt(spread**2 + eps) + bias
        case _:
            return answer


def posed(step: str, args: tuple[Any, ...], conventions: Conventions) -> tuple[Any, ...]:
    """The question to which the oracle's answer is what an implementation of these conventions should say to `args`.

    To give the mean to a fully masked query is to let it look everywhere, with no preference.
    """
    if step == "softmax" and conventions.fully_masked_softmax == "mean":
        return (np.where(_fully_masked_scores(args[0]), 0.0, args[0]),)
    if step == "attention" and conventions.fully_masked_row == "mean" and args[3:] and args[3] is not None:
        Q, K, V, mask = args
        return np.where(_fully_masked_queries(args), 0.0, Q), K, V, mask | _fully_masked_queries(args)
    return args


def causal(n: int, m: int, conventions: Conventions) -> np.ndarray:
    """The causal mask, True = attend: with n ≠ m both sequences begin at the same token, or end at the same token."""
    return np.tri(n, m, m - n if conventions.causal_alignment == "bottom_right" else 0, dtype=bool)


def _fully_masked_scores(scores: np.ndarray) -> np.ndarray:
    return (scores == -np.inf).all(axis=-1, keepdims=True)


def _fully_masked_queries(args: tuple[Any, ...]) -> np.ndarray:
    """Which of the queries (b, h, n, 1) is fully masked."""
    Q, K, _, *masks = args
    attends = True if not masks or masks[0] is None else masks[0]
    return np.logical_not(np.broadcast_to(attends, (*Q.shape[:-1], K.shape[-2])).any(axis=-1, keepdims=True))
