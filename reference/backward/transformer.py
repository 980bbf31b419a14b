"""The whole backward: from the gradient of the logits to that of every learned number.

    logits = Y W_out + b_out,   Y = decoder(X, M),   M = encoder(X_source),   X = √d · table[tokens] + positions

Positions are not learned, so dX goes on to the embedding as it is. Tied, W_out is the target embedding, transposed: used twice, the
table gets the gradients of both uses.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int

from reference.backward.decoder import decoder_backward
from reference.backward.embedding import embedding_backward
from reference.backward.encoder import encoder_backward
from reference.backward.output_projection import output_projection_backward
from reference.decoder import decoder
from reference.embedding import embedding
from reference.mask import padding_mask
from reference.parameters import PAPER, Architecture, TransformerParameters
from reference.positional_encoding import add_positions
from reference.trace import inside
from reference.transformer import encode


def transformer_backward(
    dlogits: Float64[np.ndarray, "n vocab"],
    source: Int[np.ndarray, " m"],
    target: Int[np.ndarray, " n"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    source_mask: Bool[np.ndarray, " m"] | None = None,
    target_mask: Bool[np.ndarray, " n"] | None = None,
) -> TransformerParameters:
    """The gradients of all parameters; None where there is no such parameter."""
    p, scale = parameters, architecture.scale_embedding
    reads = None if source_mask is None else padding_mask(source_mask, len(source))
    writes = None if target_mask is None else padding_mask(target_mask, len(target))
    looks = None if source_mask is None else padding_mask(source_mask, len(target))
    with inside("source"):
        X_source = add_positions(embedding(source, p.source_embedding, scale))
    with inside("target"):
        X = add_positions(embedding(target, p.target_embedding, scale))
    M = encode(source, p, architecture, source_mask)
    Y = decoder(X, M, p.decoder, architecture, writes, looks, p.decoder_norm)

    # back through logits = Y W_out + b_out
    W_out = p.target_embedding.T if p.W_out is None else p.W_out
    dY, dW_out, db_out = output_projection_backward(dlogits, Y, W_out, p.b_out)

    # back through Y = decoder(X, M) and M = encoder(X_source)
    dX, dM, of_decoder, of_decoder_norm = decoder_backward(dY, X, M, p.decoder, architecture, writes, looks, p.decoder_norm)
    dX_source, of_encoder, of_encoder_norm = encoder_backward(dM, X_source, p.encoder, architecture, reads, p.encoder_norm)

    # back through X = √d · table[tokens] + positions
    of_source = embedding_backward(dX_source, source, p.source_embedding, scale)
    of_target = embedding_backward(dX, target, p.target_embedding, scale)
    if p.W_out is None:
        of_target, dW_out = of_target + dW_out.T, None
    return TransformerParameters(of_source, of_target, of_encoder, of_decoder, dW_out, db_out, of_encoder_norm, of_decoder_norm)
