"""The probes and translations of conventions themselves, on an implementation of any of them."""

from dataclasses import replace
from itertools import cycle, islice, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_rounding_only
from properties.implementations.convention_probes import PROBES, settle, shown
from properties.implementations.conventions import CHOICES, CONVENTIONS, OURS, Conventions, causal, without_keys
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.attention import attention_calls, scores
from properties.inputs.sequences import cached_calls, packed_calls, paged_calls
from properties.steps import BEYOND
from properties.test_conventions import assert_followed
from properties.verdicts import ClaimBroken, ConventionMismatch


class Configurable:
    """Right by any conventions, and silent about them unless told to declare some."""

    name, arrays, dtypes = "configurable", "numpy", ("float64",)
    steps = frozenset({"attention", "softmax", "mask", "layer_norm", "positional_encoding", "embedding"}) | BEYOND
    options = frozenset({"packed_attention.causal", "cached_attention.ring"})

    def __init__(self, follows: Conventions, declares: Conventions | None = None, without: frozenset[str] = frozenset()) -> None:
        self.follows, self.conventions = follows, declares
        self.steps = self.steps - without

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Weights, whatever becomes of a row of −∞."""
        return self._flushed(self._weights(scores, self.follows.fully_masked_softmax))

    def _flushed(self, X: np.ndarray) -> np.ndarray:
        """Without subnormal numbers, where they are flushed."""
        tiny = np.finfo(X.dtype).smallest_normal
        return np.where(np.abs(X) < tiny, np.zeros_like(X), X) if self.follows.subnormals == "flushed" else X

    def _weights(self, scores: np.ndarray, choice: str | None) -> np.ndarray:
        fully_masked = (scores == -np.inf).all(axis=-1, keepdims=True)
        if choice == "mean":
            scores = np.where(fully_masked, 0.0, scores)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return np.where(fully_masked, 0.0, weights) if choice == "zeros" else weights

    def attention(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """One that may take a mask to add, and that may keep NaN out."""
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1])
        if mask is not None:
            leaks = np.isnan(scores) if self.follows.non_finite_masked_key == "leaks" else False
            scores = np.where(self._attends(mask) | leaks, scores, -np.inf)
        weights = self._flushed(self._weights(scores, self.follows.fully_masked_row))
        return self._flushed(weights @ (np.nan_to_num(V) if self.follows.non_finite_behind_mask == "blocked" else V))

    def _attends(self, mask: np.ndarray) -> np.ndarray:
        expected = {"integer": np.int64, "additive": np.float64}.get(self.follows.mask_polarity or "", np.bool_)
        if mask.dtype != expected:
            raise TypeError(f"mask: expected {expected.__name__}, got {mask.dtype}")
        match self.follows.mask_polarity:
            case "additive":
                return np.isfinite(mask)
            case "integer":
                return mask == 1
            case polarity:
                return mask ^ (polarity == "true_masks")

    def mask(self, n: int, m: int) -> np.ndarray:
        """Top-left or bottom-right, True for *attend* unless masks say what is hidden."""
        return causal(n, m, self.follows) ^ (self.follows.mask_polarity == "true_masks")

    def layer_norm(self, X: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
        """Eps on either side of the root."""
        variance = X.var(axis=-1, keepdims=True)
        root = np.sqrt(variance + eps) if self.follows.eps == "inside" else np.sqrt(variance) + eps
        return self._flushed((X - X.mean(axis=-1, keepdims=True)) / root * gain + bias)

    def positional_encoding(self, n: int, d_model: int, *, dtype: type) -> np.ndarray:
        """Sines and cosines in turn, or by halves; an odd number of features refused, or one cosine less."""
        if d_model % 2 and self.follows.odd_d_model == "refused":
            raise ValueError(f"d_model: expected an even number of features, got {d_model}")
        angles = np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
        waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1 if self.follows.layout == "interleaved" else 1)
        return waves.reshape(n, -1)[:, :d_model].astype(dtype)

    def embedding(self, tokens: np.ndarray, *, table: np.ndarray, scale: bool = True) -> np.ndarray:
        """Rows of a table, whatever becomes of a token that has none."""
        outside = self.follows.out_of_range_token
        if outside == "refused" and (tokens < 0).any():
            raise ValueError("tokens: expected none below 0")
        if outside == "computed":
            tokens = tokens.clip(0, len(table) - 1)
        return self._flushed(self._flushed(table[tokens]) * (np.sqrt(table.shape[1]) if scale else 1.0))

    def log_sum_exp(self, Q: np.ndarray, K: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """To either base, and of nothing whatever is wanted."""
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1])
        if mask is not None:
            scores = np.where(self._attends(mask), scores, -np.inf)
        largest = np.nan_to_num(scores.max(axis=-1, keepdims=True), neginf=0.0)
        with np.errstate(divide="ignore"):
            total = largest[..., 0] + np.log(np.exp(scores - largest).sum(axis=-1))
        total = total / (np.log(2.0) if self.follows.log_sum_exp_base == "two" else 1.0)
        nothing = {"plus_infinity": np.inf, "nan": np.nan, "lowest": -1e30}
        return np.where(total == -np.inf, nothing.get(self.follows.fully_masked_log_sum_exp or "", -np.inf), total)

    def packed_attention(
        self,
        Q: np.ndarray,
        K: np.ndarray,
        V: np.ndarray,
        *,
        cu_seqlens_q: np.ndarray,
        cu_seqlens_k: np.ndarray,
        causal: bool = False,
    ) -> np.ndarray:
        """The oracle's, but for queries without keys and for lengths that cannot be."""
        lengths = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k, "causal": causal}
        try:
            got = oracle("packed_attention", Q, K, V, alignment=self.follows.causal_alignment, **lengths)
        except ValueError:
            return self._unchecked(Q, V)
        return self._alone(got, without_keys("packed_attention", (Q, K, V), lengths, self.follows))

    def paged_attention(
        self, Q: np.ndarray, K_pages: np.ndarray, V_pages: np.ndarray, *, block_table: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Likewise."""
        asked = {"block_table": block_table, "lengths": lengths}
        try:
            got = oracle("paged_attention", Q, K_pages, V_pages, **asked)
        except ValueError:
            return self._unchecked(Q, V_pages)
        return self._alone(got, without_keys("paged_attention", (Q, K_pages, V_pages), asked, self.follows))

    def cached_attention(
        self, Q: np.ndarray, K_cache: np.ndarray, V_cache: np.ndarray, *, lengths: np.ndarray, ring: bool = False
    ) -> np.ndarray:
        """Likewise."""
        asked = {"lengths": lengths, "ring": ring}
        try:
            got = oracle("cached_attention", Q, K_cache, V_cache, **asked)
        except ValueError:
            return self._unchecked(Q, V_cache)
        return self._alone(got, without_keys("cached_attention", (Q, K_cache, V_cache), asked, self.follows))

    def _unchecked(self, Q: np.ndarray, V: np.ndarray) -> np.ndarray:
        if self.follows.corrupt_indices == "refused":
            raise ValueError("indices: expected possible ones")
        return np.zeros((*Q.shape[:-1], V.shape[-1]))

    def _alone(self, got: np.ndarray, alone: np.ndarray) -> np.ndarray:
        return np.where(alone, {"nan": np.nan, "unspecified": 7.0}.get(self.follows.sequence_without_keys or "", 0.0), got)


TOGETHER = (
    "mask_polarity",
    "causal_alignment",
    "fully_masked_row",
    "fully_masked_softmax",
    "eps",
    "layout",
    "non_finite_behind_mask",
)
OF_SEQUENCES = ("log_sum_exp_base", "fully_masked_log_sum_exp", "sequence_without_keys", "corrupt_indices")
OF_TOGETHER, OF_OTHERS = (
    list(product(*(CHOICES[name] for name in CHOICES if name not in OF_SEQUENCES and (name in TOGETHER) is together)))
    for together in (True, False)
)
EVERY_COMBINATION = [
    Conventions(*one, *other, *(getattr(OURS, name) for name in OF_SEQUENCES))
    for one, other in zip(OF_TOGETHER, islice(cycle(OF_OTHERS), len(OF_TOGETHER)), strict=True)
]
"""All of those that are followed together in one call; of the others each combination, in turn."""
OF_STEPS_BEYOND = [
    replace(OURS, **dict(zip(("causal_alignment", *OF_SEQUENCES), choices, strict=True)))
    for choices in product(*(CHOICES[name] for name in ("causal_alignment", *OF_SEQUENCES)))
]
"""All of those that log-sum-exp, packed and paged attention follow."""
PARTS = [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 5))]  # of five: no number of choices is a multiple


@pytest.mark.parametrize("part", PARTS)
def test_every_combination_of_conventions_is_identified_exactly(part):
    """An implementation that declares nothing is found to follow just what it does follow; a fifth of them at a time."""
    nothing = Conventions(**dict.fromkeys(CHOICES))

    for follows in EVERY_COMBINATION[part::5]:
        impl = Impl(Configurable(follows, without=BEYOND), "float64")
        assert settle(impl, nothing) == (follows, frozenset(CHOICES) - set(OF_SEQUENCES), ())


def test_every_combination_of_the_steps_beyond_the_article_is_identified_exactly():
    """By these steps alone."""
    nothing = Conventions(**dict.fromkeys(CHOICES))

    for follows in OF_STEPS_BEYOND:
        impl = Impl(Configurable(follows, without=Configurable.steps - BEYOND), "float64")
        assert settle(impl, nothing) == (follows, frozenset({"causal_alignment", *OF_SEQUENCES}), ())


def test_the_polarity_of_masks_is_what_the_signature_says_unless_it_is_left_open():
    """A bare callable is held to True = attend: an inverted mask is a fault and not a finding."""
    inverted = replace(OURS, mask_polarity="true_masks")
    impl = Impl(Configurable(inverted), "float64")

    assert impl.conventions.mask_polarity == "true_attends"
    with pytest.raises(ConventionMismatch, match="mask_polarity: declared true_attends, but the probe shows true_masks"):
        assert_followed(impl, "mask_polarity", "attention")


def test_an_implementation_of_several_mask_forms_is_held_to_the_declared_one():
    """Truth values, ones and zeros, numbers to be added: whoever takes them all may declare any of them."""
    liberal = Configurable(OURS)
    liberal._attends = lambda mask: np.isfinite(mask) if mask.dtype == float else mask == 1  # type: ignore[method-assign]

    for declared in ("true_attends", "integer", "additive"):
        liberal.conventions = replace(OURS, mask_polarity=declared)
        assert_followed(Impl(liberal, "float64"), "mask_polarity", "attention")


@pytest.mark.parametrize("name", list(CHOICES))
def test_a_wrong_declaration_is_a_mismatch(name):
    """Whichever convention it is that is declared wrongly, and whatever is declared in its place."""
    for step, right, wrong in product(PROBES[name].steps, CHOICES[name], CHOICES[name]):
        follows, declares = replace(OURS, **{name: right}), replace(OURS, **{name: wrong})
        impl = Impl(Configurable(follows, declares), "float64")
        if not impl.offers(step):
            continue
        if right == wrong or wrong == CONVENTIONS[name].allows:
            assert_followed(impl, name, step)
        else:
            with pytest.raises(ConventionMismatch, match=f"{name}: declared {wrong}, but the probe shows {right}"):
                assert_followed(impl, name, step)


def test_who_wraps_below_and_computes_beyond_does_not_wrap():
    """To wrap is to refuse what lies beyond the last row, as Python indexing does."""
    clamping = Configurable(OURS)
    clamping.embedding = lambda tokens, *, table, scale=True: table[tokens.clip(None, len(table) - 1)]  # type: ignore[method-assign]

    found, _ = shown(Impl(clamping, "float64"), "out_of_range_token", "embedding")

    assert found == "computed"


def test_an_answer_that_fits_no_convention_is_a_fault():
    """An attention that gives a fully masked row something of its own follows none of the choices."""
    strange = Configurable(OURS, OURS)
    strange.attention = lambda Q, K, V, mask=None: np.full((*Q.shape[:-1], V.shape[-1]), 7.0)  # type: ignore[method-assign]

    with pytest.raises(ClaimBroken, match="fully_masked_row: none of zeros, nan, mean answers the probe with 7"):
        assert_followed(Impl(strange, "float64"), "fully_masked_row", "attention")


def test_a_choice_that_does_not_exist_is_refused():
    """One line that names the field, what it may be and what it was."""
    with pytest.raises(ValueError, match="eps: expected one of inside, outside, got 'between'"):
        Conventions(eps="between")


@given(st.sampled_from(EVERY_COMBINATION), attention_calls(masked=True, fully_masked=True), scores())
def test_an_implementation_of_any_conventions_agrees_with_the_oracle(follows, call, rows):
    """Asked in its own terms and its answers translated, it is judged as one of ours: masks, fully masked rows, layout, eps."""
    impl = Impl(Configurable(follows, follows), "float64")
    X, norm = call.args[2][:, 0], {"gain": np.ones(call.args[2].shape[-1]), "bias": np.ones(call.args[2].shape[-1]), "eps": 0.25}
    fully_masked = np.where(np.arange(rows.shape[-2])[:, None] == 0, -np.inf, rows)

    assert_rounding_only(impl, "attention", impl.attention(*call.args), *call.args)
    assert_rounding_only(impl, "softmax", impl.softmax(fully_masked), fully_masked)
    assert_rounding_only(impl, "layer_norm", impl.layer_norm(X, **norm), X, **norm)
    assert_rounding_only(impl, "positional_encoding", impl.positional_encoding(5, 6), 5, 6)


@given(st.sampled_from(OF_STEPS_BEYOND), attention_calls(fully_masked=True), packed_calls(), paged_calls(), cached_calls())
def test_steps_beyond_the_article_of_any_conventions_agree_with_the_oracle(follows, call, packed, paged, cached):
    """Whatever the base, a fully masked row, a query without keys, and the alignment of causal sequences are."""
    impl = Impl(Configurable(follows, follows), "float64")
    Q, K, _, mask = call.args

    assert_rounding_only(impl, "log_sum_exp", impl.log_sum_exp(Q, K, mask), Q, K, mask)
    assert_rounding_only(
        impl, "packed_attention", impl.packed_attention(*packed.args, **packed.kwargs), *packed.args, **packed.kwargs
    )
    assert_rounding_only(impl, "paged_attention", impl.paged_attention(*paged.args, **paged.kwargs), *paged.args, **paged.kwargs)
    assert_rounding_only(
        impl, "cached_attention", impl.cached_attention(*cached.args, **cached.kwargs), *cached.args, **cached.kwargs
    )
