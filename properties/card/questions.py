"""What attention does with its options, where there is a choice: small questions whose answers differ from choice to choice.

Conventions that the oracle translates stand in `properties.implementations.conventions`; these are shown on the card alone. A
question is asked with keyword arguments of attention (`causal`, `scale`, `bias`, `window`, `softcap`, `sinks`, `slopes`), and only
of an implementation that takes them. Scores of 0 and V = identity print the visible set: row i is 1 over its size, or 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from properties.card.asking import (
    D_K,
    ROOT,
    SCALE_D_V,
    SCALE_H,
    attend,
    band,
    biased,
    capped,
    capped_and_masked,
    grouped,
    left_beside,
    logit,
    near_keys,
    scaled,
    sloped,
    sloped_from,
    spread,
    sunk,
    visible,
    visible_set,
    weight,
)
from properties.implementations.formats import FORMATS
from properties.implementations.impl import Impl
from properties.verdicts import ImplementationError, NotOffered


@dataclass(frozen=True)
class Choice:
    """What a choice means, and the exact answer of who makes it."""

    meaning: str
    answer: Any


@dataclass(frozen=True)
class Question:
    """Which convention is asked for, with which options, how, and the answer under each choice."""

    name: str
    what: str
    how: str
    ask: Callable[[Impl], np.ndarray]
    choices: Mapping[str, Choice]
    options: frozenset[str] = frozenset()
    step: str = "attention"
    strange: Callable[[np.ndarray], str] = lambda got: ", ".join(f"{number:.4g}" for number in got.ravel()[:8])

    def read(self, got: np.ndarray, dtype: str) -> str | None:
        """The choice that answers `got` but for a few roundings, and that no other choice is as near to; None for none."""
        answers = {name: np.asarray(choice.answer, np.float64).ravel() for name, choice in self.choices.items()}
        for name, answer in answers.items():
            others = [_apart(answer, other) for key, other in answers.items() if key != name]
            size = max(1.0, float(np.abs(answer[np.isfinite(answer)]).max(initial=0.0)))
            rounded = 4 * max(FORMATS[dtype].u, FORMATS["tf32"].u) * size  # scores, weights, a sum, a result; float32 may be TF32's
            if _apart(got.ravel(), answer) < min([rounded, *(other / 4 for other in others if other > 0)]):
                return name
        return None


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference; infinite where NaN or an infinity stands in one alone."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(one - other))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


CAUSAL = (3, 7)  # queries and keys: n ≠ m, or no alignment shows
BEGIN, END = "both sequences begin with the same token", "both sequences end with the same token"
WINDOW = (2, 1)
WINDOW_EDGES = {"inclusive": (2, 1), "exclusive": (1, 0), "counts_itself": (1, 1)}
EDGES = {
    "inclusive": "i − left … i + right",
    "exclusive": "i − left + 1 … i + right − 1",
    "counts_itself": "i − left + 1 … i + right",
}


def _window_choices() -> dict[str, Choice]:
    """Both edges, and from which end keys are counted."""
    n, m = CAUSAL
    choices = {
        f"{edge}, {alignment}": Choice(EDGES[edge], spread(band(n, m, off, left, right)))
        for edge, (left, right) in WINDOW_EDGES.items()
        for alignment, off in (("top_left", 0), ("bottom_right", m - n))
    }
    return choices | {"ignored": Choice("all keys are visible", spread(np.ones((n, m))))}


SCALES = {
    "1/√d_k": (1 / ROOT, "scores are Q·Kᵀ/√d_k"),
    "1": (1.0, "scores are Q·Kᵀ, not scaled"),
    "1/d_k": (1 / D_K, "scores are Q·Kᵀ/d_k"),
    "1/√d_v": (SCALE_D_V**-0.5, "scores are Q·Kᵀ/√d_v"),
    "1/√(h·d_k)": ((SCALE_H * D_K) ** -0.5, "scores are Q·Kᵀ/√d_model"),
}
PRODUCT = 4.0


def _factor(got: np.ndarray) -> str:
    return f"scores are {logit(float(got.ravel()[0])) / PRODUCT:.4g}·Q·Kᵀ"


# All of them ----------------------------------------------------------------------------------------------------------


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


QUESTIONS: tuple[Question, ...] = (
    Question(
        "default_scale",
        "scale of Q·Kᵀ",
        "one product of 4",
        scaled(PRODUCT),
        {name: Choice(meaning, weight(PRODUCT * factor)) for name, (factor, meaning) in SCALES.items()},
        strange=_factor,
    ),
    Question(
        "causal",
        "causal=True where n ≠ m",
        "V = identity, 3 × 7",
        visible(*CAUSAL, causal=True),
        {
            "top_left": Choice(BEGIN, spread(band(*CAUSAL, 0, None, 0))),
            "bottom_right": Choice(END, spread(band(*CAUSAL, CAUSAL[1] - CAUSAL[0], None, 0))),
            "ignored": Choice("all keys are visible", spread(np.ones(CAUSAL))),
            "strict": Choice("a query does not see its own key", spread(band(*CAUSAL, 0, None, -1))),
        },
        _of("causal"),
        strange=visible_set,
    ),
    Question(
        "scale",
        "scale=0.5",
        "one product of 2",
        scaled(2.0, scale=0.5),
        {
            "multiplies": Choice("scale·Q·Kᵀ", weight(1.0)),
            "divides": Choice("Q·Kᵀ/scale", weight(4.0)),
            "on_top": Choice("scale·Q·Kᵀ/√d_k", weight(0.25)),
            "ignored": Choice("Q·Kᵀ/√d_k", weight(0.5)),
        },
        _of("scale"),
        strange=lambda got: f"scores are {logit(float(got.ravel()[0])) / 2:.4g}·Q·Kᵀ",
    ),
    Question(
        "window",
        "window=(2, 1) where n ≠ m",
        "V = identity, 3 × 7",
        visible(*CAUSAL, window=WINDOW),
        _window_choices(),
        _of("window"),
        strange=visible_set,
    ),
    Question(
        "softcap",
        "softcap=1",
        "a score far above",
        capped(softcap=1.0),
        {
            "scores": Choice("c·tanh(s/c) of the scores", weight(1.0)),
            "base_2": Choice("c·tanh(s/c) of s·log₂e, for an exponential of base 2", weight(np.log(2.0))),
            "ignored": Choice("no cap", 1.0),
        },
        _of("softcap"),
        strange=lambda got: f"the largest score is {logit(float(got.ravel()[0])):.4g}",
    ),
    Question(
        "softcap_and_mask",
        "softcap and mask",
        "softcap=1, a mask",
        capped_and_masked,
        {
            "before_mask": Choice("a masked key stays masked", 0.0),
            "after_mask": Choice("a masked score becomes −c, and its key is seen", weight(-1.0)),
        },
        _of("softcap"),
    ),
    Question(
        "bias",
        "bias",
        "a bias of 1",
        biased(1.0),
        {
            "after_scale": Choice("added to the scaled scores", weight(1.0)),
            "before_scale": Choice("added to Q·Kᵀ, and scaled with it", weight(1 / ROOT)),
            "subtracted": Choice("subtracted from the scaled scores", weight(-1.0)),
            "ignored": Choice("no effect", 0.5),
        },
        _of("bias"),
    ),
    Question(
        "softcap_and_bias",
        "softcap and bias",
        "softcap=1, a bias of 4",
        biased(4.0, softcap=1.0),
        {
            "cap_first": Choice("the bias is added to capped scores", weight(4.0)),
            "bias_first": Choice("the sum with the bias is capped", weight(float(np.tanh(4.0)))),
        },
        _of("softcap", "bias"),
    ),
    Question(
        "sinks",
        "sinks",
        "sinks 1 and −1",
        sunk((1.0, -1.0)),
        {
            "logit": Choice("one more logit in each head's softmax, with value 0", left_beside(np.e, 1 / np.e)),
            "scaled": Choice("the logit is scaled with the scores", left_beside(np.exp(1 / ROOT), np.exp(-1 / ROOT))),
            "twice": Choice("the logit is counted twice", left_beside(2 * np.e, 2 / np.e)),
            "base_2": Choice("the logit is of base 2", left_beside(2.0, 0.5)),
            "ignored": Choice("no effect", [1.0, 1.0]),
        },
        _of("sinks"),
    ),
    Question(
        "sinks_and_softcap",
        "sinks and softcap",
        "softcap=1, a sink of 4",
        sunk((4.0,), softcap=1.0),
        {
            "cap_first": Choice("the sink is not capped", left_beside(np.exp(4.0))),
            "sink_first": Choice("the sink is capped with the scores", left_beside(np.exp(np.tanh(4.0)))),
        },
        _of("sinks", "softcap"),
    ),
    Question(
        "slopes",
        "sign of slopes (ALiBi)",
        "slope 1, 2 × 2",
        sloped,
        {
            "−|i − j|": Choice("a key counts less the further it is", [weight(-1.0), weight(-1.0)]),
            "+|i − j|": Choice("a key counts more the further it is", [weight(1.0), weight(1.0)]),
            "j − i": Choice("later keys count more", [weight(1.0), weight(-1.0)]),
            "i − j": Choice("earlier keys count more", [weight(-1.0), weight(1.0)]),
            "ignored": Choice("no effect", [0.5, 0.5]),
        },
        _of("slopes"),
    ),
    Question(
        "slopes_alignment",
        "slopes where n ≠ m",
        "slope 1, 1 × 3",
        sloped_from,
        {"top_left": Choice(BEGIN, near_keys(0)), "bottom_right": Choice(END, near_keys(2))},
        _of("slopes"),
    ),
    Question(
        "grouped_heads",
        "4 query heads, 2 key heads",
        "values 1 and 2",
        grouped,
        {
            "contiguous": Choice("heads 0, 1 read key head 0; heads 2, 3 key head 1", [1.0, 1.0, 2.0, 2.0]),
            "strided": Choice("heads 0, 2 read key head 0; heads 1, 3 key head 1", [1.0, 2.0, 1.0, 2.0]),
        },
    ),
)
BY_NAME = {question.name: question for question in QUESTIONS}


# Which options there are ----------------------------------------------------------------------------------------------

OPTIONS: Mapping[str, Any] = {
    "causal": True,
    "scale": 1.0,
    "bias": np.zeros((1, 1, 1, 1)),
    "window": (1, 1),
    "softcap": 1.0,
    "sinks": np.zeros(1),
    "slopes": np.zeros(1),
    "dropout_mask": np.ones((1, 1, 1, 1), dtype=bool),
}
"""The keyword arguments of attention, each with a value to try it with."""
NO_SUCH_ARGUMENT = (
    "unexpected keyword argument",
    "invalid keyword argument",
    "no keyword arguments",
    "incompatible function arguments",
)


def options_of(impl: Impl) -> frozenset[str]:
    """The options of attention that an implementation offers: what it says, or else which keyword arguments it takes."""
    if not impl.offers("attention"):
        return frozenset()
    said = getattr(impl.adapter, "options", None)
    return frozenset(OPTIONS) & frozenset(said) if said is not None else frozenset(filter(lambda name: _takes(impl, name), OPTIONS))


def _takes(impl: Impl, option: str) -> bool:
    """Whether attention knows this keyword argument, whatever it makes of it."""
    try:
        attend(impl, np.zeros((1, 1)), np.ones((1, 1, 1)), **{option: OPTIONS[option]})
    except NotOffered:
        return False
    except ImplementationError as refusal:
        return not any(said in str(refusal) for said in NO_SUCH_ARGUMENT)
    except Exception:  # it crashed or hung: the questions say so
        return True
    return True


def questions_for(impl: Impl, options: frozenset[str]) -> list[Question]:
    """Those that can be asked of an implementation with these options."""
    return [question for question in QUESTIONS if impl.offers(question.step) and question.options <= options]
