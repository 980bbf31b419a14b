"""Conventions: every implementation is seen to follow those it declares, and those it leaves open are found out."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_rounding_only
from properties.claims import claim
from properties.implementations.convention_probes import PROBES, settle, shown
from properties.implementations.conventions import CHOICES, CONVENTIONS, OURS, Conventions, causal, without_keys
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.attention import attention_calls, scores
from properties.inputs.sequences import cached_calls, packed_calls, paged_calls
from properties.steps import BEYOND
from properties.verdicts import ClaimBroken, ConventionMismatch, record


def assert_followed(impl: Impl, name: str, step: str) -> None:
    """The step shows the declared choice, or any where none is declared. Raises ConventionMismatch where it shows another."""
    declared = impl.adapter.conventions or Conventions()
    found, got = shown(impl.under(replace(impl.conventions, **{name: None})), name, step)
    if found is None:
        raise ClaimBroken(f"{name}: none of {', '.join(CHOICES[name])} answers the probe with {got:.6g}", got=got)
    choice = getattr(declared, name)
    if choice is None:
        record.counterexample(f"not declared, found by a probe: {name} = {found}")
    elif found != choice != CONVENTIONS[name].allows:
        raise ConventionMismatch(f"{name}: declared {choice}, but the probe shows {found}")
    record.compared(1)


@claim("M2", needs="attention")
def test_mask_polarity_is_as_declared(impl):
    """True = attend, True = hidden, 1 = may attend, or numbers to be added."""
    assert_followed(impl, "mask_polarity", "attention")


@claim("M2", needs="multi_head")
def test_mask_polarity_of_multi_head_is_as_declared(impl):
    """The same for an implementation of whole multi-head attention."""
    assert_followed(impl, "mask_polarity", "multi_head")


@claim("M2", needs="attention")
def test_fully_masked_row_is_as_declared(impl):
    """Zeros, NaN or the mean of the values."""
    assert_followed(impl, "fully_masked_row", "attention")


@claim("M3", needs="attention")
def test_non_finite_masked_values_are_as_declared(impl):
    """0·NaN is NaN nearly everywhere; an implementation that blocks it may say so, and is then held to it."""
    assert_followed(impl, "non_finite_behind_mask", "attention")


@claim("M3", needs="attention")
def test_non_finite_masked_keys_are_as_declared(impl):
    """Where −∞ is put in place of a masked score nothing of its key arrives; where −∞ is added to it, NaN does."""
    assert_followed(impl, "non_finite_masked_key", "attention")


@claim("M1", needs="mask")
def test_causal_alignment_is_as_declared(impl):
    """With n ≠ m the two sequences begin at the same token (top-left) or end at the same token (bottom-right)."""
    assert_followed(impl, "causal_alignment", "mask")


@claim("A5", needs="softmax")
def test_fully_masked_softmax_is_as_declared(impl):
    """Zeros, NaN, or the same weight for all."""
    assert_followed(impl, "fully_masked_softmax", "softmax")


@claim("R2", needs="layer_norm")
def test_layer_norm_eps_is_as_declared(impl):
    """Under the root with the variance, or added to the root."""
    assert_followed(impl, "eps", "layer_norm")


@claim("PE1", needs="positional_encoding")
def test_positional_encoding_layout_is_as_declared(impl):
    """In turn, or all sines before all cosines."""
    assert_followed(impl, "layout", "positional_encoding")


@claim("E1", needs="embedding")
def test_out_of_range_token_is_as_declared(impl):
    """It is refused, −1 is the last row, or some row is returned."""
    assert_followed(impl, "out_of_range_token", "embedding")


@claim("PE1", needs="positional_encoding")
def test_odd_d_model_is_as_declared(impl):
    """It is refused, or an encoding is returned in which a sine or a cosine is left over."""
    assert_followed(impl, "odd_d_model", "positional_encoding")


@claim("Y1", needs="log_sum_exp")
def test_log_sum_exp_base_is_as_declared(impl):
    """The natural logarithm, or the logarithm to base 2."""
    assert_followed(impl, "log_sum_exp_base", "log_sum_exp")


@claim("Y1", needs="log_sum_exp")
def test_fully_masked_log_sum_exp_is_as_declared(impl):
    """−∞, which adds nothing when parts are merged; or +∞, NaN, a very low number."""
    assert_followed(impl, "fully_masked_log_sum_exp", "log_sum_exp")


@claim("Y3", needs=("packed_attention", "packed_attention.causal"))
def test_causal_alignment_of_packed_attention_is_as_declared(impl):
    """With n ≠ m a sequence's queries and keys begin together (top-left) or end together (bottom-right)."""
    assert_followed(impl, "causal_alignment", "packed_attention.causal")


@claim("X10", needs=("multi_head", "multi_head.causal"))
def test_causal_alignment_of_multi_head_is_as_declared(impl):
    """The same of the causal flag of a whole layer."""
    assert_followed(impl, "causal_alignment", "multi_head.causal")


@claim("X11", needs=("multi_head_with_weights", "multi_head_with_weights.causal"))
def test_causal_alignment_of_multi_head_with_weights_is_as_declared(impl):
    """And where it also returns weights."""
    assert_followed(impl, "causal_alignment", "multi_head_with_weights.causal")


@claim("Y3", needs="packed_attention")
def test_packed_sequence_without_keys_is_as_declared(impl):
    """Zeros, NaN, or anything."""
    assert_followed(impl, "sequence_without_keys", "packed_attention")


@claim("Y4", needs="paged_attention")
def test_paged_sequence_without_keys_is_as_declared(impl):
    """Zeros, NaN, or anything, for a length of 0 and for queries before the first position."""
    assert_followed(impl, "sequence_without_keys", "paged_attention")


@claim("Y6", needs="cached_attention")
def test_cached_sequence_without_keys_is_as_declared(impl):
    """Zeros, NaN, or anything, for a length of 0 and for queries before the first position."""
    assert_followed(impl, "sequence_without_keys", "cached_attention")


@claim("Y5", needs="cached_attention")
def test_corrupt_cache_lengths_are_as_declared(impl):
    """They are refused, or not checked."""
    assert_followed(impl, "corrupt_indices", "cached_attention")


@claim("Y5", needs="packed_attention")
def test_corrupt_cumulative_lengths_are_as_declared(impl):
    """They are refused, or not checked."""
    assert_followed(impl, "corrupt_indices", "packed_attention")


@claim("Y5", needs="paged_attention")
def test_corrupt_block_tables_are_as_declared(impl):
    """They are refused, or not checked."""
    assert_followed(impl, "corrupt_indices", "paged_attention")


def subnormal_numbers(identifier: str, step: str) -> Callable[..., None]:
    """The property that `step` keeps subnormal numbers, unless it is declared, or left open, that they may be flushed to 0."""

    def test(impl: Impl) -> None:
        assert_followed(impl, "subnormals", step)

    test.__name__ = test.__qualname__ = f"test_whether_{step}_keeps_subnormal_numbers"
    test.__doc__ = f"Subnormal numbers in an argument, on the way and in the result of {step} are kept, or flushed to 0."
    return claim(identifier, needs=step)(test)  # as @claim(…) would


test_whether_embedding_keeps_subnormal_numbers = subnormal_numbers("E4", "embedding")
test_whether_attention_keeps_subnormal_numbers = subnormal_numbers("A2", "attention")
test_whether_softmax_keeps_subnormal_numbers = subnormal_numbers("A5", "softmax")
test_whether_multi_head_keeps_subnormal_numbers = subnormal_numbers("H3", "multi_head")
test_whether_layer_norm_keeps_subnormal_numbers = subnormal_numbers("R2", "layer_norm")
test_whether_residual_norm_keeps_subnormal_numbers = subnormal_numbers("R1", "residual_norm")
test_whether_feed_forward_keeps_subnormal_numbers = subnormal_numbers("F1", "feed_forward")
test_whether_output_projection_keeps_subnormal_numbers = subnormal_numbers("O1", "output_projection")
test_whether_encoder_layer_keeps_subnormal_numbers = subnormal_numbers("L1", "encoder_layer")
test_whether_decoder_layer_keeps_subnormal_numbers = subnormal_numbers("L3", "decoder_layer")
test_whether_transformer_keeps_subnormal_numbers = subnormal_numbers("T1", "transformer")


# The probes and translations themselves -------------------------------------------------------------------------------


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


def test_every_combination_of_conventions_is_identified_exactly():
    """An implementation that declares nothing is found to follow just what it does follow."""
    nothing = Conventions(**dict.fromkeys(CHOICES))

    for follows in EVERY_COMBINATION:
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
