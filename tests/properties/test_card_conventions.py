"""The contract card names the conventions of a black box: toys of every combination of them."""

from itertools import product

import numpy as np
import pytest
import torch

from properties.card import arithmetic, questions
from properties.card.card import HOW, conventions_of, options_shown
from properties.implementations import domain_probes
from properties.implementations.conventions import CONVENTIONS, Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES, Impl
from veriformer.isolation.in_process import InProcess

BINARY = {
    "mask_polarity": ("true_attends", "true_masks"),
    "fully_masked_row": ("zeros", "nan"),
    "non_finite_behind_mask": ("leaks", "blocked"),
    "subnormals": ("kept", "flushed"),
    "default_scale": ("1/√d_k", "1"),
    "causal": ("top_left", "bottom_right"),
    "window": ("inclusive", "exclusive"),
    "softcap_and_mask": ("before_mask", "after_mask"),
    "grouped_heads": ("contiguous", "strided"),
    "log_sum_exp_base": ("natural", "two"),
}
COMBINATIONS = [dict(zip(BINARY, choices, strict=True)) for choices in product(*BINARY.values())]


class Toy:
    """Attention with options that makes the choices it is told to make, and declares none of them."""

    name, arrays, dtypes = "toy", "numpy", ("float64",)
    steps = frozenset({"attention", "log_sum_exp"})
    options = ("causal", "scale", "window", "softcap")

    def __init__(self, **chosen):
        self.chosen = {name: choices[0] for name, choices in BINARY.items()} | chosen
        self.conventions = Conventions(mask_polarity=None)

    def attention(self, Q, K, V, mask=None, *, causal=False, scale=None, window=None, softcap=None):
        K, V = (self.grouped(X, Q.shape[1]) for X in (K, V))
        scores = self.flushed(self.scores(Q, K, mask, causal, scale, window, softcap))
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = self.flushed(weights / weights.sum(axis=-1, keepdims=True))
        if self.chosen["fully_masked_row"] == "zeros":
            weights = np.where((scores == -np.inf).all(axis=-1, keepdims=True), 0.0, weights)
        return self.flushed(weights @ (np.nan_to_num(V) if self.chosen["non_finite_behind_mask"] == "blocked" else V))

    def grouped(self, X, h):
        g = X.shape[1]
        heads = np.arange(h) * g // h if self.chosen["grouped_heads"] == "contiguous" else np.arange(h) % g
        return X[:, heads]

    def scores(self, Q, K, mask, causal, scale, window, softcap):
        default = Q.shape[-1] ** -0.5 if self.chosen["default_scale"] == "1/√d_k" else 1.0
        scores = Q @ K.swapaxes(-1, -2) * (default if scale is None else scale)
        n, m = scores.shape[-2:]
        distance = np.arange(m) - np.arange(n)[:, None] - (m - n if self.chosen["causal"] == "bottom_right" else 0)
        visible = distance <= (0 if causal else m)
        if window is not None:
            edge = self.chosen["window"] == "exclusive"
            visible = visible & (distance >= edge - window[0]) & (distance <= window[1] - edge)
        if mask is not None:
            visible = visible & (mask ^ (self.chosen["mask_polarity"] == "true_masks"))
        hide = lambda s: np.where(visible, s, -np.inf)  # noqa: E731
        cap = lambda s: s if softcap is None else softcap * np.tanh(s / softcap)  # noqa: E731
        return hide(cap(scores)) if self.chosen["softcap_and_mask"] == "before_mask" else cap(hide(scores))

    def flushed(self, X):
        tiny = np.finfo(X.dtype).smallest_normal
        return np.where(np.abs(X) < tiny, 0.0, X) if self.chosen["subnormals"] == "flushed" else X

    def log_sum_exp(self, Q, K, mask=None):
        scores = self.scores(Q, K, mask, causal=False, scale=None, window=None, softcap=None)
        with np.errstate(divide="ignore"):
            return np.log(np.exp(scores).sum(axis=-1)) / (np.log(2.0) if self.chosen["log_sum_exp_base"] == "two" else 1.0)


def found(impl) -> dict[str, str]:
    """Each convention of a card, and the choice that it names."""
    rows, asked = conventions_of(impl)
    return {row.name: row.choice for row in (*rows, *options_shown(asked, questions.options_of(asked)))}


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 5))])
def test_every_combination_of_ten_conventions_is_named(part):
    """All 1,024, a fifth at a time: five is odd, so in each part every two choices meet."""
    assert len(COMBINATIONS) == 2**10

    for chosen in COMBINATIONS[part::5]:
        named = found(Impl(Toy(**chosen), "float64"))
        named["window"] = named["window"].partition(", ")[0] if named["window"].endswith(chosen["causal"]) else named["window"]

        assert {name: named[name] for name in chosen} == chosen


@pytest.mark.parametrize("scale", ["1/√d_k", "1"])
def test_the_scale_of_a_kernel_with_limits_is_named(scale):
    """Its questions are laid into 64 features, which multiplies Q: right for who divides by the root of 64 alone."""

    def attention(Q, K, V, mask=None):
        if mask is not None or Q.shape[-1] != 64 or Q.shape[2] % 128 or K.shape != Q.shape:
            raise ValueError("not taken")
        return torch.softmax(Q @ K.mT * (Q.shape[-1] ** -0.5 if scale == "1/√d_k" else 1.0), -1) @ V

    impl = Impl(InProcess("kernel", attention, "attention", "torch"), "float64")

    named = found(impl.within(domain_probes.found(impl)))

    assert named["default_scale"] == scale
    assert named["subnormals"] == "" or scale == "1/√d_k"


def test_an_implementation_of_another_scale_is_asked_as_if_it_were_ours():
    """Its other conventions and its arithmetic are read with scores that are what they are meant to be."""
    impl = Impl(Toy(default_scale="1"), "float64")

    rows, asked = conventions_of(impl)

    assert {row.name: row.choice for row in rows}["subnormals"] == "kept"
    assert str(arithmetic.of_the_sum(asked)) == str(arithmetic.of_the_sum(Impl(Toy(), "float64").under(Conventions()))) == "float64"


class Strange:
    """Takes options, and makes of them what no choice of the card says."""

    name, arrays, dtypes, conventions = "strange", "numpy", ("float64",), Conventions()
    steps = frozenset({"attention"})

    def attention(self, Q, K, V, mask=None, *, causal=False, softcap=None, sinks=None, slopes=None, bias=None):
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1] + 1)
        if causal:
            scores = np.where(np.arange(K.shape[-2]) == 0, scores, -np.inf)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - np.where(np.isfinite(scores), scores, 0.0).max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True) @ V


def test_an_answer_that_fits_no_choice_is_printed():
    """A scale of 1/√(d_k + 1), a visible set; and an option that changes nothing is ignored."""
    _, asked = conventions_of(Impl(Strange(), "float64"))

    rows = {row.name: row for row in options_shown(asked, questions.options_of(asked))}

    assert (rows["default_scale"].problem, rows["default_scale"].meaning) == ("other", "scores are 0.2425·Q·Kᵀ")
    assert (rows["causal"].problem, rows["causal"].meaning) == ("other", "visible: 0→0, 1→0, 2→0")
    assert {name for name, row in rows.items() if row.choice == "ignored"} == {"softcap", "bias", "sinks", "slopes"}
    assert "scale" not in rows


@pytest.mark.parametrize("question", questions.QUESTIONS, ids=lambda question: question.name)
def test_the_answers_of_a_question_are_told_apart_in_every_dtype(question):
    """Each choice's exact answer, rounded to the dtype, is read as that choice; what is near to none is none."""
    for dtype, (name, choice) in product(DTYPES, question.choices.items()):
        exact = np.asarray(choice.answer, np.float64)
        off = np.where(np.isfinite(exact), exact + 2.0**-5 * np.maximum(1, exact), 5.0)

        assert question.read(FORMATS[dtype].to_nearest(exact), dtype) == name
        assert question.read(off, dtype) is None


def test_a_scale_that_is_nearly_right_is_not_taken_for_right():
    """1/√(d_k + 1) is no 1/√d_k: in float32 by far more than rounding."""
    nearly = np.array([1 / (1 + np.exp(-4 / 17**0.5))])

    assert questions.BY_NAME["default_scale"].read(nearly, "float32") is None


def test_every_probe_is_told_in_words():
    """Of conventions that the oracle translates, too."""
    assert HOW.keys() == CONVENTIONS.keys()
