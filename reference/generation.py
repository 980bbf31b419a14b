"""Generation: take the likeliest next word, append it, go round again.

Greedy decoding; everything is recomputed for every word, so that there is no cache to be wrong about. The article takes "the
largest entry of the last row"; beam search and sampling are not here.
"""

import numpy as np
from jaxtyping import Bool, Int

from reference.parameters import PAPER, Architecture, TransformerParameters
from reference.transformer import decode, encode


def generate(
    source: Int[np.ndarray, " m"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    *,
    bos: int,
    eos: int,
    length: int,
    source_mask: Bool[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " words"]:
    """Write up to `length` words after `start`; stop after the word `end`. Of equal logits the first word wins."""
    M = encode(source, parameters, architecture, source_mask)
    target = np.array([bos])
    while len(target) <= length:
        logits = decode(target, M, parameters, architecture, source_mask)
        word = int(np.argmax(logits[-1]))
        target = np.append(target, word)
        if word == eos:
            break
    return target[1:]
