"""The whole: the encoder reads the source, the decoder writes the target.

Vaswani et al. (2017), figure 1. Row i of the result scores the token that follows target tokens 0 … i.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from optimized.decoder import decoder
from optimized.embedding import embedding
from optimized.encoder import encoder
from optimized.mask import padding_mask
from optimized.output_projection import output_projection
from optimized.parameters import PAPER, Architecture, TransformerParameters
from optimized.positional_encoding import add_positions


def encode(
    source: Int[Tensor, "b m"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b m d_model"]:
    """Read a batch of sources; `source_mask` is False for tokens that only fill up a row to the common length.

    Raises ValueError for empty sources: there would be nothing for cross-attention to look at.
    """
    if source.shape[-1] == 0:
        raise ValueError("source: expected at least one token, got an empty sequence")
    X = add_positions(embedding(source, parameters.source_embedding, architecture.scale_embedding))
    mask = None if source_mask is None else padding_mask(source_mask)
    return encoder(X, parameters.encoder, architecture, mask, parameters.encoder_norm)


def decode(
    target: Int[Tensor, "b n"],
    M: Float[Tensor, "b m d_model"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[Tensor, "b m"] | None = None,
    target_mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n vocab"]:
    """Score the token after each token of a batch of targets, given the encoder's output M. Raises ValueError for empty targets."""
    if target.shape[-1] == 0:
        raise ValueError("target: expected at least one token (the start token), got an empty sequence")
    X = add_positions(embedding(target, parameters.target_embedding, architecture.scale_embedding))
    mask = None if target_mask is None else padding_mask(target_mask)
    memory_mask = None if source_mask is None else padding_mask(source_mask)
    X = decoder(X, M, parameters.decoder, architecture, mask, memory_mask, parameters.decoder_norm)
    return project_to_vocab(X, parameters)


def project_to_vocab(X: Float[Tensor, "... n d_model"], parameters: TransformerParameters) -> Float[Tensor, "... n vocab"]:
    """The last product, with the target embedding turned where the two are tied: a view, not a copy."""
    W_out = parameters.target_embedding.mT if parameters.W_out is None else parameters.W_out
    return output_projection(X, W_out, parameters.b_out)


def transformer(
    source: Int[Tensor, "b m"],
    target: Int[Tensor, "b n"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[Tensor, "b m"] | None = None,
    target_mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n vocab"]:
    """From two batches of token ids to logits: (b, m), (b, n) → (b, n, vocab); gradients reach every parameter."""
    M = encode(source, parameters, architecture, source_mask)
    return decode(target, M, parameters, architecture, source_mask, target_mask)
