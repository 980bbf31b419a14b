"""The parameters of the oracle's layers and models, made of the nested dicts in which the steps are handed them."""

from typing import Any

from reference.parameters import (
    DecoderLayerParameters,
    EncoderLayerParameters,
    FeedForwardParameters,
    MultiHeadParameters,
    NormParameters,
    TransformerParameters,
)

Nested = dict[str, Any]


def encoder_layer_parameters(layer: Nested) -> EncoderLayerParameters:
    """One encoder layer from nested dicts."""
    return EncoderLayerParameters(
        MultiHeadParameters(**layer["self_attention"]),
        NormParameters(**layer["norm_1"]),
        FeedForwardParameters(**layer["feed_forward"]),
        NormParameters(**layer["norm_2"]),
    )


def decoder_layer_parameters(layer: Nested) -> DecoderLayerParameters:
    """One decoder layer from nested dicts."""
    return DecoderLayerParameters(
        MultiHeadParameters(**layer["self_attention"]),
        NormParameters(**layer["norm_1"]),
        MultiHeadParameters(**layer["cross_attention"]),
        NormParameters(**layer["norm_2"]),
        FeedForwardParameters(**layer["feed_forward"]),
        NormParameters(**layer["norm_3"]),
    )


def norm_parameters(norm: Nested | None) -> NormParameters | None:
    """One LayerNorm from its dict; None stays None."""
    return None if norm is None else NormParameters(**norm)


def transformer_parameters(parameters: Nested) -> TransformerParameters:
    """A whole model from nested dicts."""
    return TransformerParameters(
        source_embedding=parameters["source_embedding"],
        target_embedding=parameters["target_embedding"],
        encoder=tuple(encoder_layer_parameters(layer) for layer in parameters["encoder"]),
        decoder=tuple(decoder_layer_parameters(layer) for layer in parameters["decoder"]),
        W_out=parameters.get("W_out"),
        b_out=parameters.get("b_out"),
        encoder_norm=norm_parameters(parameters.get("encoder_norm")),
        decoder_norm=norm_parameters(parameters.get("decoder_norm")),
    )
