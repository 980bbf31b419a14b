"""The oracle behind the face of `properties.steps`: batched float64 arrays in and out, the reference run row by row.

Nothing here computes: it takes batches and heads apart, hands each sequence to `reference`, and stacks the results.
It works on any ndarray subclass that NumPy's own functions preserve, so the rounding simulator runs the very same code.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from properties.implementations.oracle_parameters import (
    decoder_layer_parameters,
    encoder_layer_parameters,
    norm_parameters,
    transformer_parameters,
)
from properties.implementations.shapes import shapes_checked_once
from reference.attention import attention
from reference.attention_options import attention_with_options, key_head
from reference.backward.attention import attention_backward
from reference.backward.feed_forward import feed_forward_backward
from reference.backward.residual_norm import layer_norm_backward
from reference.backward.softmax import softmax_backward
from reference.cached_attention import cached_attention, check_length
from reference.decoder import decoder, decoder_layer
from reference.embedding import embedding
from reference.encoder import encoder, encoder_layer
from reference.feed_forward import feed_forward
from reference.generation import generate
from reference.log_sum_exp import log_sum_exp
from reference.mask import causal_mask
from reference.multi_head import concat_heads, multi_head, split_heads
from reference.multi_head_options import causal_masks, multi_head_with_weights
from reference.output_projection import next_token, output_projection
from reference.packed_attention import check_cu_seqlens, packed_attention
from reference.paged_attention import check_pages, paged_attention
from reference.parameters import Architecture, FeedForwardParameters, MultiHeadParameters, NormParameters
from reference.positional_encoding import positional_encoding
from reference.residual_norm import layer_norm, residual_norm
from reference.softmax import softmax
from reference.transformer import transformer

Nested = dict[str, Any]


def oracle(step: str, *args: Any, **kwargs: Any) -> Any:
    """What `step` gives exactly, for the arguments of its signature in `STEPS`: an array, or a dict of them by their names.

    Raises KeyError for a step without an oracle.
    """
    with shapes_checked_once(step, args, kwargs):
        return ORACLES[step](*args, **kwargs)


def is_refused(step: str, args: tuple[Any, ...], kwargs: Nested) -> bool:
    """Whether the oracle refuses the lengths or the block table of packed, paged or cached attention: then there is no answer."""
    try:
        if step == "packed_attention":
            for name, rows in (("cu_seqlens_q", args[0]), ("cu_seqlens_k", args[1])):
                check_cu_seqlens(name, kwargs[name], len(rows))
            return len(kwargs["cu_seqlens_q"]) != len(kwargs["cu_seqlens_k"])
        if step == "paged_attention":
            for blocks, length in zip(kwargs["block_table"], kwargs["lengths"], strict=True):
                check_pages(blocks, int(length), *args[1].shape[:2])
        if step == "cached_attention":
            for length in kwargs["lengths"]:
                check_length(int(length), args[1].shape[2], ring=kwargs.get("ring", False))
    except ValueError:
        return True
    return False


def _stack(rows: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The rows of a batch as one array; a batch of none still has the shape its rows would have had."""
    return np.stack(rows).reshape(shape) if rows else np.zeros(shape)


def _masks(mask: np.ndarray | None, b: int, h: int, n: int, m: int) -> list[list[np.ndarray | None]]:
    """A mask broadcastable to (b, h, n, m), as one (n, m) mask for every batch row and head."""
    if mask is None:
        return [[None] * h for _ in range(b)]
    full = np.broadcast_to(mask, (b, h, n, m))
    return [[full[i, j] for j in range(h)] for i in range(b)]


def _embedding(tokens: np.ndarray, *, table: np.ndarray, scale: bool = True) -> np.ndarray:
    return _stack([embedding(row, table, scale) for row in tokens], (*tokens.shape, table.shape[1]))


def _positional_encoding(n: int, d_model: int, **_: Any) -> np.ndarray:
    return positional_encoding(np.arange(n, dtype=np.float64), d_model)


def _softmax(scores: np.ndarray) -> np.ndarray:
    n, m = scores.shape[-2:]
    leading = int(np.prod(scores.shape[:-2], dtype=int))
    return _stack([softmax(rows) for rows in scores.reshape(leading, n, m)], scores.shape)


def _attention(Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """The article's attention, or the one with options where there are any; K and V may have fewer heads than Q."""
    b, h, n, _d_k = Q.shape
    g, m = K.shape[1:3]
    masks, of_head = _masks(mask, b, h, n, m), _options_of_each_head(options, (b, h, n, m))
    heads = []
    for i, j in product(range(b), range(h)):
        k = key_head(j, h, g)
        one_head = (Q[i, j], K[i, k], V[i, k], masks[i][j])
        heads.append(attention_with_options(*one_head, **of_head(i, j)) if options else attention(*one_head))
    return _stack(heads, (b, h, n, V.shape[-1]))


def _options_of_each_head(options: Nested, shape: tuple[int, int, int, int]) -> Callable[[int, int], Nested]:
    """The options of `attention` as one head of one batch row has them: its own bias, sink, slope, and what is kept."""
    of_heads = ("window", "bias", "sinks", "slopes", "dropout_mask")
    plain = {name: value for name, value in options.items() if name not in of_heads}
    window, bias, sinks, slopes, kept = (options.get(name) for name in of_heads)
    biases = None if bias is None else np.broadcast_to(bias, shape)

    def of_head(i: int, j: int) -> Nested:
        return plain | {
            "window": None if window is None else (window[0], window[1]),
            "bias": None if biases is None else biases[i, j],
            "sink": None if sinks is None else sinks[j],
            "slope": None if slopes is None else slopes[j],
            "dropout_mask": None if kept is None else kept[i, j],
        }

    return of_head


def _softmax_backward(dP: np.ndarray, scores: np.ndarray) -> np.ndarray:
    n, m = scores.shape[-2:]
    leading = int(np.prod(scores.shape[:-2], dtype=int))
    rows = zip(dP.reshape(leading, n, m), scores.reshape(leading, n, m), strict=True)
    return _stack([softmax_backward(*each) for each in rows], scores.shape)


def _attention_backward(
    dO: np.ndarray, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None, **choices: Any
) -> dict[str, np.ndarray]:
    b, h, n, _d_k = Q.shape
    masks = _masks(mask, b, h, n, K.shape[2])
    heads = [attention_backward(dO[i, j], Q[i, j], K[i, j], V[i, j], masks[i][j], **choices) for i in range(b) for j in range(h)]
    gradients = zip(*heads, strict=True) if heads else ([], [], [])
    return {name: _stack(list(each), X.shape) for name, each, X in zip(("dQ", "dK", "dV"), gradients, (Q, K, V), strict=True)}


def _attention_gradient(
    dO: np.ndarray, Q: np.ndarray, K: np.ndarray, V: np.ndarray, mask: np.ndarray | None = None, *, of: str, **choices: Any
) -> np.ndarray:
    choices = {name: value for name, value in choices.items() if name != "passes"}
    return _attention_backward(dO, Q, K, V, mask, **choices)[f"d{of}"]


def _layer_norm_backward(dY: np.ndarray, X: np.ndarray, *, gain: np.ndarray, eps: float = 1e-5) -> dict[str, np.ndarray]:
    rows, norm = (-1, X.shape[-1]), NormParameters(gain, gain)
    dX, of_norm = layer_norm_backward(dY.reshape(rows), X.reshape(rows), norm, eps)  # the parameters see all rows of the batch
    return {"dX": dX.reshape(X.shape), "dgain": of_norm.gain, "dbias": of_norm.bias}


def _feed_forward_backward(
    dY: np.ndarray, X: np.ndarray, *, W_1: np.ndarray, b_1: np.ndarray, W_2: np.ndarray, activation: str = "relu"
) -> dict[str, np.ndarray]:
    rows, parameters = (-1, X.shape[-1]), FeedForwardParameters(W_1, b_1, W_2, W_2[0])
    dX, maps = feed_forward_backward(dY.reshape(rows), X.reshape(rows), parameters, activation)  # type: ignore[arg-type]
    return {"dX": dX.reshape(X.shape), "dW_1": maps.W_1, "db_1": maps.b_1, "dW_2": maps.W_2, "db_2": maps.b_2}


def _split_heads(X: np.ndarray, h: int) -> np.ndarray:
    b, n, d_model = X.shape
    return _stack([np.stack(split_heads(row, h)) for row in X], (b, h, n, d_model // h))


def _concat_heads(heads: np.ndarray) -> np.ndarray:
    b, h, n, d_k = heads.shape
    return _stack([concat_heads(list(row)) for row in heads], (b, n, h * d_k))


def _multi_head(X: np.ndarray, M: np.ndarray, mask: np.ndarray | None = None, **choices: Any) -> np.ndarray:
    """`offset` may be given besides what the step's signature has: at which key the first query stands, for `causal`."""
    parameters, h, masks = _of_layer(X, M, mask, **choices)
    rows = [multi_head(X[i], M[i], parameters, h, masks[i]) for i in range(len(X))]
    return _stack(rows, (*X.shape[:2], parameters.W_O.shape[1]))


def _multi_head_with_weights(X: np.ndarray, M: np.ndarray, mask: np.ndarray | None = None, **choices: Any) -> dict[str, np.ndarray]:
    """Likewise."""
    parameters, h, masks = _of_layer(X, M, mask, **choices)
    rows = [multi_head_with_weights(X[i], M[i], parameters, h, masks[i]) for i in range(len(X))]
    (b, n), m = X.shape[:2], M.shape[1]
    output, weights = zip(*rows, strict=True) if rows else ([], [])
    return {"output": _stack(list(output), (b, n, parameters.W_O.shape[1])), "weights": _stack(list(weights), (b, h, n, m))}


def _of_layer(
    X: np.ndarray, M: np.ndarray, mask: np.ndarray | None, *, h: int, causal: bool = False, offset: int = 0, **weights: Any
) -> tuple[MultiHeadParameters, int, list[list[np.ndarray | None]]]:
    """Its parameters, the number of its heads, and the mask of each head of each batch row."""
    (b, n), m = X.shape[:2], M.shape[1]
    masks = _masks(mask, b, h, n, m)
    return MultiHeadParameters(**weights), h, [causal_masks(n, m, of_row, offset) for of_row in masks] if causal else masks


def _layer_norm(X: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return _stack([layer_norm(row, NormParameters(gain, bias), eps) for row in X], X.shape)


def _residual_norm(X: np.ndarray, Y: np.ndarray, *, gain: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    norm = NormParameters(gain, bias)
    return _stack([residual_norm(x, lambda _, y=y: y, norm, eps) for x, y in zip(X, Y, strict=True)], X.shape)


def _feed_forward(X: np.ndarray, *, activation: str = "relu", **weights: Any) -> np.ndarray:
    parameters = FeedForwardParameters(**weights)
    return _stack([feed_forward(row, parameters, activation) for row in X], X.shape)  # type: ignore[arg-type]


def _one_mask(mask: np.ndarray | None, b: int, n: int, m: int) -> list[np.ndarray | None]:
    """The masks of a layer: one for each batch row, the same for all heads."""
    return [masks[0] for masks in _masks(mask, b, 1, n, m)]


def _encoder_layer(X: np.ndarray, mask: np.ndarray | None = None, *, layer: Nested, **choices: Any) -> np.ndarray:
    b, n, _ = X.shape
    parameters, architecture = encoder_layer_parameters(layer), Architecture(**choices)
    masks = _one_mask(mask, b, n, n)
    return _stack([encoder_layer(X[i], parameters, architecture, masks[i]) for i in range(b)], X.shape)


def _encoder(
    X: np.ndarray, mask: np.ndarray | None = None, *, layers: list[Nested], final_norm: Nested | None = None, **choices: Any
) -> np.ndarray:
    b, n, _ = X.shape
    parameters, architecture = [encoder_layer_parameters(layer) for layer in layers], Architecture(**choices)
    masks, norm = _one_mask(mask, b, n, n), norm_parameters(final_norm)
    return _stack([encoder(X[i], parameters, architecture, masks[i], norm) for i in range(b)], X.shape)


def _decoder_layer(
    X: np.ndarray,
    M: np.ndarray,
    mask: np.ndarray | None = None,
    memory_mask: np.ndarray | None = None,
    *,
    layer: Nested,
    **choices: Any,
) -> np.ndarray:
    b, n, _ = X.shape
    parameters, architecture = decoder_layer_parameters(layer), Architecture(**choices)
    masks, memory_masks = _one_mask(mask, b, n, n), _one_mask(memory_mask, b, n, M.shape[1])
    rows = [decoder_layer(X[i], M[i], parameters, architecture, masks[i], memory_masks[i]) for i in range(b)]
    return _stack(rows, X.shape)


def _decoder(
    X: np.ndarray,
    M: np.ndarray,
    mask: np.ndarray | None = None,
    memory_mask: np.ndarray | None = None,
    *,
    layers: list[Nested],
    final_norm: Nested | None = None,
    **choices: Any,
) -> np.ndarray:
    b, n, _ = X.shape
    parameters, architecture = [decoder_layer_parameters(layer) for layer in layers], Architecture(**choices)
    masks, memory_masks = _one_mask(mask, b, n, n), _one_mask(memory_mask, b, n, M.shape[1])
    norm = norm_parameters(final_norm)
    rows = [decoder(X[i], M[i], parameters, architecture, masks[i], memory_masks[i], norm) for i in range(b)]
    return _stack(rows, X.shape)


def _output_projection(X: np.ndarray, *, W: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    return _stack([output_projection(row, W, b) for row in X], (*X.shape[:-1], W.shape[1]))


def _next_token(X: np.ndarray, *, W: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    return _stack([next_token(output_projection(row, W, b)) for row in X], (*X.shape[:-1], W.shape[1]))


def _rows(real: np.ndarray | None, b: int) -> list[np.ndarray | None]:
    return [None] * b if real is None else list(real)


def _transformer(
    source: np.ndarray,
    target: np.ndarray,
    source_mask: np.ndarray | None = None,
    target_mask: np.ndarray | None = None,
    *,
    parameters: Nested,
    **choices: Any,
) -> np.ndarray:
    b, n = target.shape
    whole, architecture = transformer_parameters(parameters), Architecture(**choices)
    source_rows, target_rows = _rows(source_mask, b), _rows(target_mask, b)
    rows = [transformer(source[i], target[i], whole, architecture, source_rows[i], target_rows[i]) for i in range(b)]
    return _stack(rows, (b, n, len(whole.target_embedding) if whole.W_out is None else whole.W_out.shape[1]))


def _generation(
    source: np.ndarray,
    source_mask: np.ndarray | None = None,
    *,
    parameters: Nested,
    bos: int,
    eos: int,
    length: int,
    **choices: Any,
) -> np.ndarray:
    b = len(source)
    whole, architecture, real = transformer_parameters(parameters), Architecture(**choices), _rows(source_mask, b)
    written = np.full((b, length), eos, dtype=np.int64)
    for i in range(b):
        tokens = generate(source[i], whole, architecture, bos=bos, eos=eos, length=length, source_mask=real[i])
        written[i, : len(tokens)] = tokens
    return written


def _log_sum_exp(Q: np.ndarray, K: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    b, h, n, _d_k = Q.shape
    masks = _masks(mask, b, h, n, K.shape[2])
    return _stack([log_sum_exp(Q[i, j], K[i, j], masks[i][j]) for i in range(b) for j in range(h)], (b, h, n))


def _packed_attention(Q: np.ndarray, K: np.ndarray, V: np.ndarray, **lengths: Any) -> np.ndarray:
    """`alignment` may be given besides what the step's signature has: how `causal` is meant where n ≠ m."""
    heads = [packed_attention(Q[:, j], K[:, j], V[:, j], **lengths) for j in range(Q.shape[1])]
    return np.stack(heads, axis=1)


def _by_head(Q: np.ndarray, d_v: int, one: Callable[[int, int], np.ndarray]) -> np.ndarray:
    b, h, n, _d_k = Q.shape
    return _stack([one(i, j) for i in range(b) for j in range(h)], (b, h, n, d_v))


def _paged_attention(
    Q: np.ndarray, K_pages: np.ndarray, V_pages: np.ndarray, *, block_table: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    pages = [(K_pages[:, :, j], V_pages[:, :, j]) for j in range(Q.shape[1])]
    return _by_head(Q, V_pages.shape[-1], lambda i, j: paged_attention(Q[i, j], *pages[j], block_table[i], int(lengths[i])))


def _cached_attention(Q: np.ndarray, K: np.ndarray, V: np.ndarray, *, lengths: np.ndarray, ring: bool = False) -> np.ndarray:
    return _by_head(Q, V.shape[-1], lambda i, j: cached_attention(Q[i, j], K[i, j], V[i, j], int(lengths[i]), ring=ring))


ORACLES: dict[str, Callable[..., Any]] = {
    "embedding": _embedding,
    "positional_encoding": _positional_encoding,
    "attention": _attention,
    "softmax": _softmax,
    "mask": causal_mask,
    "split_heads": _split_heads,
    "concat_heads": _concat_heads,
    "multi_head": _multi_head,
    "multi_head_with_weights": _multi_head_with_weights,
    "layer_norm": _layer_norm,
    "residual_norm": _residual_norm,
    "feed_forward": _feed_forward,
    "encoder_layer": _encoder_layer,
    "encoder": _encoder,
    "decoder_layer": _decoder_layer,
    "decoder": _decoder,
    "output_projection": _output_projection,
    "next_token": _next_token,
    "transformer": _transformer,
    "generation": _generation,
    "log_sum_exp": _log_sum_exp,
    "packed_attention": _packed_attention,
    "paged_attention": _paged_attention,
    "cached_attention": _cached_attention,
    "softmax_backward": _softmax_backward,
    "attention_backward": _attention_backward,
    "attention_gradient": _attention_gradient,
    "layer_norm_backward": _layer_norm_backward,
    "feed_forward_backward": _feed_forward_backward,
}
