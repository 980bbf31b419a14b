"""Conventions: every implementation is seen to follow those it declares, and those it leaves open are found out."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.budgets import assert_rounding_only
from properties.claims import claim
from properties.conventions import CHOICES, OURS, Conventions, causal, settled, shown
from properties.implementations.subject import Subject
from properties.strategies import attention_calls, scores
from properties.verdicts import ClaimBroken, ConventionMismatch, record


def assert_followed(subject: Subject, name: str) -> None:
    """The probe shows the declared choice, or any where none is declared. Raises ConventionMismatch where it shows another."""
    declared = subject.adapter.conventions or Conventions()
    found, got = shown(subject.under(replace(subject.conventions, **{name: None})), name)
    if found is None:
        raise ClaimBroken(f"{name}: none of {', '.join(CHOICES[name])} answers the probe with {got:.6g}", got=got)
    choice = getattr(declared, name)
    if choice is None:
        record.counterexample(f"not declared, found by a probe: {name} = {found}")
    elif choice != found:
        raise ConventionMismatch(f"{name}: declared {choice}, but the probe shows {found}")
    record.compared(1)


@claim("M2", needs="attention")
def test_what_true_in_a_mask_means_is_as_declared(subject):
    """True = may look, True = hidden, 1 = may look, or numbers to be added."""
    assert_followed(subject, "mask_polarity")


@claim("M2", needs="multi_head")
def test_what_true_in_a_mask_of_many_heads_means_is_as_declared(subject):
    """The same for an implementation of whole multi-head attention."""
    assert_followed(subject, "mask_polarity")


@claim("M2", needs="attention")
def test_what_a_query_gets_that_may_look_nowhere_is_as_declared(subject):
    """Zeros, NaN or the mean of the values."""
    assert_followed(subject, "blind_row")


@claim("M3", needs="attention")
def test_whether_nan_behind_a_mask_leaks_is_as_declared(subject):
    """0·NaN is NaN nearly everywhere; an implementation that blocks it may say so, and is then held to it."""
    assert_followed(subject, "non_finite_behind_mask")


@claim("M1", needs="mask")
def test_where_a_causal_mask_begins_is_as_declared(subject):
    """With n ≠ m the two sequences begin at the same word (top-left) or end at the same word (bottom-right)."""
    assert_followed(subject, "causal_alignment")


@claim("A5", needs="softmax")
def test_what_becomes_of_a_row_of_minus_infinity_is_as_declared(subject):
    """Zeros, NaN, or the same weight for all."""
    assert_followed(subject, "blind_softmax")


@claim("R2", needs="layer_norm")
def test_where_eps_stands_is_as_declared(subject):
    """Under the root with the variance, or added to the root."""
    assert_followed(subject, "eps")


@claim("PE1", needs="positional_encoding")
def test_how_sines_and_cosines_are_laid_out_is_as_declared(subject):
    """In turn, or all sines before all cosines."""
    assert_followed(subject, "layout")


# The probes and translations themselves -------------------------------------------------------------------------------


class Configurable:
    """Right by any conventions, and silent about them unless told to declare some."""

    name, arrays, dtypes = "configurable", "numpy", ("float64",)
    steps = frozenset({"attention", "softmax", "mask", "layer_norm", "positional_encoding"})

    def __init__(self, follows: Conventions, declares: Conventions | None = None) -> None:
        self.follows, self.conventions = follows, declares

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Weights, whatever becomes of a row of −∞."""
        return self._weights(scores, self.follows.blind_softmax)

    def _weights(self, scores: np.ndarray, blind: str | None) -> np.ndarray:
        if blind == "mean":
            scores = np.where((scores == -np.inf).all(axis=-1, keepdims=True), 0.0, scores)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return np.nan_to_num(weights) if blind == "zeros" else weights

    def attention(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """One that may take a mask to add, and that may keep NaN out."""
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1])
        if mask is not None:
            scores = np.where(self._may_look(mask), scores, -np.inf)
        weights = self._weights(scores, self.follows.blind_row)
        return weights @ (np.nan_to_num(V) if self.follows.non_finite_behind_mask == "blocked" else V)

    def _may_look(self, mask: np.ndarray) -> np.ndarray:
        expected = {"integer": np.int64, "additive": np.float64}.get(self.follows.mask_polarity or "", np.bool_)
        if mask.dtype != expected:
            raise TypeError(f"mask: expected {expected.__name__}, got {mask.dtype}")
        match self.follows.mask_polarity:
            case "additive":
                return np.isfinite(mask)
            case "integer":
                return mask == 1
            case polarity:
                return mask ^ (polarity == "hidden")

    def mask(self, n: int, m: int) -> np.ndarray:
        """Top-left or bottom-right, True for *may look* unless masks say what is hidden."""
        return causal(n, m, self.follows) ^ (self.follows.mask_polarity == "hidden")

    def layer_norm(self, X: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
        """Eps on either side of the root."""
        variance = X.var(axis=-1, keepdims=True)
        root = np.sqrt(variance + eps) if self.follows.eps == "inside" else np.sqrt(variance) + eps
        return (X - X.mean(axis=-1, keepdims=True)) / root * gain + bias

    def positional_encoding(self, n: int, d_model: int, *, dtype: type) -> np.ndarray:
        """Sines and cosines in turn, or by halves."""
        angles = np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
        waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1 if self.follows.layout == "interleaved" else 1)
        return waves.reshape(n, d_model).astype(dtype)


EVERY_COMBINATION = [Conventions(*choices) for choices in product(*CHOICES.values())]


def test_every_combination_of_conventions_is_identified_exactly():
    """An implementation that declares nothing is found to follow just what it does follow: all combinations of all choices."""
    nothing = Conventions(**dict.fromkeys(CHOICES))

    for follows in EVERY_COMBINATION:
        assert settled(Subject(Configurable(follows), "float64"), nothing) == follows


def test_the_polarity_of_masks_is_what_the_signature_says_unless_it_is_left_open():
    """A bare callable is held to True = may look: an inverted mask is a fault and not a finding."""
    inverted = replace(OURS, mask_polarity="hidden")
    subject = Subject(Configurable(inverted), "float64")

    assert subject.conventions.mask_polarity == "may_look"
    with pytest.raises(ConventionMismatch, match="mask_polarity: declared may_look, but the probe shows hidden"):
        assert_followed(subject, "mask_polarity")


def test_who_reads_masks_of_several_forms_is_held_to_the_one_declared():
    """Truth values, ones and zeros, numbers to be added: whoever takes them all may declare any of them."""
    liberal = Configurable(OURS)
    liberal._may_look = lambda mask: np.isfinite(mask) if mask.dtype == float else mask == 1  # type: ignore[method-assign]

    for declared in ("may_look", "integer", "additive"):
        liberal.conventions = replace(OURS, mask_polarity=declared)
        assert_followed(Subject(liberal, "float64"), "mask_polarity")


@pytest.mark.parametrize("name", list(CHOICES))
def test_a_wrong_declaration_is_a_mismatch(name):
    """Whichever convention it is that is declared wrongly, and whatever is declared in its place."""
    for right, wrong in product(CHOICES[name], CHOICES[name]):
        follows, declares = replace(OURS, **{name: right}), replace(OURS, **{name: wrong})
        subject = Subject(Configurable(follows, declares), "float64")
        if right == wrong:
            assert_followed(subject, name)
        else:
            with pytest.raises(ConventionMismatch, match=f"{name}: declared {wrong}, but the probe shows {right}"):
                assert_followed(subject, name)


def test_an_answer_that_fits_no_convention_is_a_fault():
    """An attention that gives a blind row something of its own follows none of the choices."""
    strange = Configurable(OURS, OURS)
    strange.attention = lambda Q, K, V, mask=None: np.full((*Q.shape[:-1], V.shape[-1]), 7.0)  # type: ignore[method-assign]

    with pytest.raises(ClaimBroken, match="blind_row: none of zeros, nan, mean answers the probe with 7"):
        assert_followed(Subject(strange, "float64"), "blind_row")


def test_a_choice_that_does_not_exist_is_refused():
    """One line that names the field, what it may be and what it was."""
    with pytest.raises(ValueError, match="eps: expected one of inside, outside, got 'between'"):
        Conventions(eps="between")


@given(st.sampled_from(EVERY_COMBINATION), attention_calls(masked=True, blind=True), scores())
def test_an_implementation_of_any_conventions_agrees_with_the_oracle(follows, call, rows):
    """Asked in its own terms and its answers translated, it is judged as one of ours: masks, blind rows, layout, eps."""
    subject = Subject(Configurable(follows, follows), "float64")
    X, norm = call.args[2][:, 0], {"gain": np.ones(call.args[2].shape[-1]), "bias": np.ones(call.args[2].shape[-1]), "eps": 0.25}
    blind = np.where(np.arange(rows.shape[-2])[:, None] == 0, -np.inf, rows)

    assert_rounding_only(subject, "attention", subject.attention(*call.args), *call.args)
    assert_rounding_only(subject, "softmax", subject.softmax(blind), blind)
    assert_rounding_only(subject, "layer_norm", subject.layer_norm(X, **norm), X, **norm)
    assert_rounding_only(subject, "positional_encoding", subject.positional_encoding(5, 6), 5, 6)
