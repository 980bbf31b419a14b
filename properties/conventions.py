"""What is a choice and not a fault: an implementation declares its conventions, and what it leaves open is found out by probes.

The oracle knows one convention of each kind (`OURS`). Between it and an implementation of another stand translations: of the
arguments the implementation is called with (`asked`), of its answer (`answered`), and of the question to the oracle (`posed`).
Which GELU is meant is no convention here: it is an argument of the steps.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.verdicts import CandidateError, NotOffered

if TYPE_CHECKING:
    from properties.implementations.subject import Subject

CHOICES: dict[str, tuple[str, ...]] = {
    "mask_polarity": ("may_look", "hidden", "integer", "additive"),
    "causal_alignment": ("top_left", "bottom_right"),
    "blind_row": ("zeros", "nan", "mean"),
    "blind_softmax": ("zeros", "nan", "mean"),
    "eps": ("inside", "outside"),
    "layout": ("interleaved", "halves"),
    "non_finite_behind_mask": ("leaks", "blocked"),
}


@dataclass(frozen=True)
class Conventions:
    """What an implementation says of itself; None is left open, and found out.

    The polarity of masks is not open unless it is said to be: the signature of the steps names it. Raises ValueError for a
    choice that is not one of `CHOICES`.
    """

    mask_polarity: str | None = "may_look"  # True, or a number, in a mask: may look, is hidden, is 1 (looks) or 0, is added
    causal_alignment: str | None = None  # for n ≠ m both sequences begin at the same word, or end at the same word
    blind_row: str | None = None  # what attention gives a query that may look nowhere: zeros, NaN, the mean of V
    blind_softmax: str | None = None  # what softmax makes of a row of nothing but −∞: zeros, NaN, the same weight for all
    eps: str | None = None  # √(var + eps) or √var + eps
    layout: str | None = None  # of sines and cosines: in turn, or first all sines
    non_finite_behind_mask: str | None = None  # NaN and ∞ in a hidden value: 0·NaN leaks, or never arrives

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")


OURS = Conventions("may_look", "top_left", "zeros", "zeros", "inside", "interleaved", "leaks")
"""The oracle's, and the fast implementation's."""


# Translation ----------------------------------------------------------------------------------------------------------

MASKED = {"attention": 3, "multi_head": 2, "encoder_layer": 1, "encoder": 1, "decoder_layer": 2, "decoder": 2}
"""Where the first mask of a step stands among its arguments; whatever follows it is a mask too."""

BURIED = {
    "eps": ("encoder_layer", "encoder", "decoder_layer", "decoder", "transformer", "generation", "gradients"),
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
    if step not in MASKED or conventions.mask_polarity == "may_look":
        return args, kwargs
    first = MASKED[step]
    masks = tuple(_mask_as(conventions.mask_polarity, mask) for mask in args[first:])
    named = {name: _mask_as(conventions.mask_polarity, value) for name, value in kwargs.items() if name in ("mask", "memory_mask")}
    return (*args[:first], *masks), {**kwargs, **named}


def _mask_as(polarity: str | None, mask: np.ndarray | None) -> np.ndarray | None:
    if mask is None:
        return None
    match polarity:
        case "hidden":
            return ~mask
        case "integer":
            return mask.astype(np.int64)
        case _:
            return np.where(mask, 0.0, -np.inf)


def answered(step: str, answer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conventions: Conventions) -> Any:
    """An answer of an implementation of these conventions, as one of ours would have given it.

    Where a blind row is NaN by declaration, NaN becomes 0 there, and anything else NaN.
    """
    match step:
        case "mask" if conventions.mask_polarity == "hidden":
            return ~answer
        case "positional_encoding" if conventions.layout == "halves":
            sines, cosines = np.split(answer, 2, axis=1)
            return np.stack([sines, cosines], axis=-1).reshape(answer.shape)
        case "softmax" if conventions.blind_softmax == "nan":
            return np.where(_blind_scores(args[0]), np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "attention" if conventions.blind_row == "nan":
            return np.where(_blind_queries(args), np.where(np.isnan(answer), 0.0, np.nan), answer)
        case "layer_norm" | "residual_norm" if conventions.eps == "outside":
            spread = np.std(sum(args), axis=-1, keepdims=True)
            eps, bias = kwargs.get("eps", 1e-5), kwargs["bias"]
            return (answer - bias) * (spread + eps) / np.sqrt(spread**2 + eps) + bias
        case _:
            return answer


def posed(step: str, args: tuple[Any, ...], conventions: Conventions) -> tuple[Any, ...]:
    """The question to which the oracle's answer is what an implementation of these conventions should say to `args`.

    To give the mean to a query that may look nowhere is to let it look everywhere, with no preference.
    """
    if step == "softmax" and conventions.blind_softmax == "mean":
        return (np.where(_blind_scores(args[0]), 0.0, args[0]),)
    if step == "attention" and conventions.blind_row == "mean" and args[3:] and args[3] is not None:
        Q, K, V, mask = args
        return np.where(_blind_queries(args), 0.0, Q), K, V, mask | _blind_queries(args)
    return args


def causal(n: int, m: int, conventions: Conventions) -> np.ndarray:
    """The causal mask, True = may look: with n ≠ m both sequences begin at the same word, or end at the same word."""
    return np.tri(n, m, m - n if conventions.causal_alignment == "bottom_right" else 0, dtype=bool)


def _blind_scores(scores: np.ndarray) -> np.ndarray:
    return (scores == -np.inf).all(axis=-1, keepdims=True)


def _blind_queries(args: tuple[Any, ...]) -> np.ndarray:
    """Which of the queries (b, h, n, 1) may look nowhere."""
    Q, K, _, *masks = args
    may_look = True if not masks or masks[0] is None else masks[0]
    return np.logical_not(np.broadcast_to(may_look, (*Q.shape[:-1], K.shape[-2])).any(axis=-1, keepdims=True))


# Probes ---------------------------------------------------------------------------------------------------------------

Probe = Callable[["Subject"], float]


def _average(subject: "Subject", values: list[float], mask: list[bool]) -> float:
    """The mean of those values that the mask lets a single query see: all scores are 0."""
    V, may_look = np.array(values)[:, None], np.array([mask])
    nothing = np.zeros((1, 1))
    if subject.offers("attention"):
        return float(subject.attention(nothing[None, None], np.zeros((1, 1, *V.shape)), V[None, None], may_look).item())
    weights = {"W_Q": nothing, "W_K": nothing, "W_V": np.eye(1), "W_O": np.eye(1)}
    biases = dict.fromkeys(("b_Q", "b_K", "b_V", "b_O"), np.zeros(1))
    return float(subject.multi_head(nothing[None], V[None], may_look, h=1, **weights, **biases).item())


def _polarity(subject: "Subject") -> float:
    """Which mask was read rightly: the declared one first, for some read several; a mask to be added last, for True is a number."""
    declared = (subject.adapter.conventions or Conventions()).mask_polarity
    choices = CHOICES["mask_polarity"]
    for polarity in sorted(choices, key=lambda choice: choice != declared):
        try:
            if _average(subject.under(Conventions(polarity)), [1.0, 2.0, 4.0], [True, False, False]) == 1:
                return float(choices.index(polarity))
        except CandidateError:
            continue
    return np.nan


def _outer_eps(subject: "Subject") -> float:
    return float(subject.layer_norm(np.array([[[1.0, -1.0]]]), gain=np.ones(2), bias=np.zeros(2), eps=1.0)[0, 0, 0])


PROBES: dict[str, tuple[tuple[str, ...], Probe, tuple[float, ...]]] = {
    "mask_polarity": (("attention", "multi_head"), _polarity, (0.0, 1.0, 2.0, 3.0)),
    "causal_alignment": (("mask",), lambda subject: float(subject.mask(1, 2)[0, 1]), (0.0, 1.0)),
    "blind_row": (("attention", "multi_head"), lambda subject: _average(subject, [1.0, 2.0, 6.0], [False] * 3), (0.0, np.nan, 3.0)),
    "blind_softmax": (("softmax",), lambda subject: float(subject.softmax(np.full((1, 2), -np.inf))[0, 0]), (0.0, np.nan, 0.5)),
    "eps": (("layer_norm",), _outer_eps, (2**-0.5, 0.5)),
    "layout": (("positional_encoding",), lambda subject: float(subject.positional_encoding(2, 4)[1, 1]), (np.cos(1), np.sin(0.01))),
    "non_finite_behind_mask": (
        ("attention", "multi_head"),
        lambda subject: _average(subject, [1.0, np.nan], [True, False]),
        (np.nan, 1.0),
    ),
}
"""For each convention: any of which steps shows it, a question, and its answer under each of the CHOICES."""


def shown(subject: "Subject", name: str) -> tuple[str | None, float]:
    """The choice that the implementation is seen to follow, and its answer to the probe; None for an answer that fits no choice."""
    _, probe, answers = PROBES[name]
    got = probe(subject)
    nearest = [choice for choice, answer in zip(CHOICES[name], answers, strict=True) if _means(got, answer, answers)]
    return (nearest[0] if nearest else None), got


def _means(got: float, answer: float, answers: tuple[float, ...]) -> bool:
    """Whether `got` is this answer, rounded: nearer to it than a quarter of the way to any other."""
    if np.isnan(got) or np.isnan(answer):
        return bool(np.isnan(got) and np.isnan(answer))
    others = [abs(other - answer) for other in answers if other != answer and not np.isnan(other)]
    return abs(got - answer) < min(others, default=1.0) / 4


def probed(subject: "Subject", name: str) -> bool:
    """Whether the implementation offers a step that would show this convention."""
    return any(subject.offers(step) for step in PROBES[name][0])


def settled(subject: "Subject", declared: Conventions | None) -> Conventions:
    """What is declared, and for what is left open what probes show; our own choice where they show nothing."""
    known = Conventions() if declared is None else declared
    for field in fields(Conventions):
        name = field.name
        if getattr(known, name) is None:
            known = replace(known, **{name: _found(subject.under(known), name) or getattr(OURS, name)})
    return known


def _found(subject: "Subject", name: str) -> str | None:
    """What the probe shows; nothing, where the implementation refuses the question."""
    try:
        return shown(subject, name)[0] if probed(subject, name) else None
    except (CandidateError, UnsatisfiedAssumption):
        return None
