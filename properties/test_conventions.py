"""Conventions: every implementation is seen to follow those it declares, and those it leaves open are found out."""

from collections.abc import Callable
from dataclasses import replace

from properties.claims import claim
from properties.implementations.convention_probes import shown
from properties.implementations.conventions import CHOICES, CONVENTIONS, Conventions
from properties.implementations.impl import Impl
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
