"""The whole: source and target to logits, and generation token by token."""

from typing import Any

import torch
from torch import Tensor

from properties.evaluation.correct.embedding import add_positions, embedding
from properties.evaluation.correct.layers import decoder, encoder
from properties.evaluation.correct.linear import linear
from properties.evaluation.correct.mask import of_padding
from properties.evaluation.correct.softmax import softmax

Parameters = dict[str, Any]


def output_projection(X: Tensor, *, W: Tensor, b: Tensor | None = None) -> Tensor:
    """A logit for every token of the vocabulary."""
    return linear(X, W, b)


def next_token(X: Tensor, *, W: Tensor, b: Tensor | None = None) -> Tensor:
    """A probability for every token of the vocabulary."""
    logits = output_projection(X, W=W, b=b)
    return softmax(logits)


def encode(source: Tensor, source_mask: Tensor | None, parameters: Parameters, scale_embedding: bool, **choices: Any) -> Tensor:
    """The source's tokens as the memory that the decoder reads."""
    rows = embedding(source, table=parameters["source_embedding"], scale=scale_embedding)
    X = add_positions(rows, source, source_mask)
    return encoder(X, of_padding(source_mask), layers=parameters["encoder"], final_norm=parameters.get("encoder_norm"), **choices)


def decode(
    target: Tensor,
    M: Tensor,
    source_mask: Tensor | None,
    target_mask: Tensor | None,
    parameters: Parameters,
    scale_embedding: bool,
    **choices: Any,
) -> Tensor:
    """The logits of the token after each target token."""
    rows = embedding(target, table=parameters["target_embedding"], scale=scale_embedding)
    X = add_positions(rows, target, target_mask)
    mask, memory_mask = of_padding(target_mask), of_padding(source_mask)
    X = decoder(X, M, mask, memory_mask, layers=parameters["decoder"], final_norm=parameters.get("decoder_norm"), **choices)
    W = parameters["target_embedding"].mT if parameters.get("W_out") is None else parameters["W_out"]
    return output_projection(X, W=W, b=parameters.get("b_out"))


def transformer(
    source: Tensor,
    target: Tensor,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    parameters: Parameters,
    scale_embedding: bool = True,
    **choices: Any,
) -> Tensor:
    """Logits (b, n, vocab)."""
    M = encode(source, source_mask, parameters, scale_embedding, **choices)
    return decode(target, M, source_mask, target_mask, parameters, scale_embedding, **choices)


def generation(
    source: Tensor,
    source_mask: Tensor | None = None,
    *,
    parameters: Parameters,
    bos: int,
    eos: int,
    length: int,
    scale_embedding: bool = True,
    **choices: Any,
) -> Tensor:
    """Greedy tokens, in a buffer of the full length: the causal mask hides what is not written yet."""
    b = len(source)
    M = encode(source, source_mask, parameters, scale_embedding, **choices)
    tokens = torch.full((b, length + 1), eos)
    tokens[:, 0] = bos
    running = torch.ones(b, dtype=torch.bool)
    for i in range(length):
        logits = decode(tokens, M, source_mask, None, parameters, scale_embedding, **choices)
        chosen = logits[:, i].argmax(dim=-1)
        tokens[:, i + 1] = torch.where(running, chosen, eos)
        running = running & (chosen != eos)
    return tokens[:, 1:]
