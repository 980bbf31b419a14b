"""The whole: the encoder reads the source, the decoder writes the target.

Vaswani et al. (2017), figure 1. Row i of the result scores the word that follows target words 0 … i.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int

from reference.decoder import decoder
from reference.embedding import embedding
from reference.encoder import encoder
from reference.mask import padding_mask
from reference.output_projection import output_projection
from reference.parameters import PAPER, Architecture, TransformerParameters
from reference.positional_encoding import add_positions
from reference.trace import inside


def encode(
    source: Int[np.ndarray, " m"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[np.ndarray, " m"] | None = None,
) -> Float64[np.ndarray, "m d_model"]:
    """Read the source: embed, add positions, run the encoder. `source_mask` is False for words that only fill up the length.

    Raises ValueError for an empty source: there would be nothing for cross-attention to look at.
    """
    if len(source) == 0:
        raise ValueError("source: expected at least one token, got an empty sequence")
    with inside("source"):
        X = add_positions(embedding(source, parameters.source_embedding, architecture.scale_embedding))
    mask = None if source_mask is None else padding_mask(source_mask, len(source))
    return encoder(X, parameters.encoder, architecture, mask, parameters.encoder_norm)


def decode(
    target: Int[np.ndarray, " n"],
    M: Float64[np.ndarray, "m d_model"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[np.ndarray, " m"] | None = None,
    target_mask: Bool[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, "n vocab"]:
    """Score the word after each target word, given the encoder's output M. Raises ValueError for an empty target."""
    n = len(target)
    if n == 0:
        raise ValueError("target: expected at least one token (the start token), got an empty sequence")
    with inside("target"):
        X = add_positions(embedding(target, parameters.target_embedding, architecture.scale_embedding))
    mask = None if target_mask is None else padding_mask(target_mask, n)
    memory_mask = None if source_mask is None else padding_mask(source_mask, n)
    X = decoder(X, M, parameters.decoder, architecture, mask, memory_mask, parameters.decoder_norm)
    W_out = parameters.target_embedding.T if parameters.W_out is None else parameters.W_out
    return output_projection(X, W_out, parameters.b_out)


def transformer(
    source: Int[np.ndarray, " m"],
    target: Int[np.ndarray, " n"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[np.ndarray, " m"] | None = None,
    target_mask: Bool[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, "n vocab"]:
    """From two sequences of word ids to logits: (m,), (n,) → (n, vocab)."""
    M = encode(source, parameters, architecture, source_mask)
    return decode(target, M, parameters, architecture, source_mask, target_mask)
