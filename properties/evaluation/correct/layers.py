"""Encoder and decoder layers, and their stacks."""

from typing import Any

from torch import Tensor

from properties.evaluation.correct.feed_forward import feed_forward
from properties.evaluation.correct.mask import both
from properties.evaluation.correct.mask import mask as causal
from properties.evaluation.correct.multi_head import multi_head
from properties.evaluation.correct.residual_norm import add_norm, layer_norm

Weights = dict[str, Any]


def finished(X: Tensor, final_norm: Weights | None, choices: dict[str, Any]) -> Tensor:
    """What leaves a stack: through its final norm, if there is one."""
    return X if final_norm is None else layer_norm(X, **final_norm, eps=choices.get("eps", 1e-5))


def encoder_layer(
    X: Tensor,
    mask: Tensor | None = None,
    *,
    layer: Weights,
    h: int,
    norm: str = "post",
    activation: str = "relu",
    eps: float = 1e-5,
) -> Tensor:
    """Every token looks at the others, then thinks for itself."""

    def attend(Z: Tensor) -> Tensor:
        return multi_head(Z, Z, mask, h=h, **layer["self_attention"])

    def think(Z: Tensor) -> Tensor:
        return feed_forward(Z, activation=activation, **layer["feed_forward"])

    Y = add_norm(X, attend, layer["norm_1"], norm, eps)
    return add_norm(Y, think, layer["norm_2"], norm, eps)


def encoder(
    X: Tensor, mask: Tensor | None = None, *, layers: list[Weights], final_norm: Weights | None = None, **choices: Any
) -> Tensor:
    """The layers one after another, then the final norm if there is one."""
    for layer in layers:
        X = encoder_layer(X, mask, layer=layer, **choices)
    return finished(X, final_norm, choices)


def decoder_layer(
    X: Tensor,
    M: Tensor,
    mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    layer: Weights,
    h: int,
    norm: str = "post",
    activation: str = "relu",
    eps: float = 1e-5,
) -> Tensor:
    """Every token looks at its past, then at the memory, then thinks for itself."""
    past = both(causal(X.shape[1], X.shape[1]), mask)

    def look_back(Z: Tensor) -> Tensor:
        return multi_head(Z, Z, past, h=h, **layer["self_attention"])

    def look_at_source(Z: Tensor) -> Tensor:
        return multi_head(Z, M, memory_mask, h=h, **layer["cross_attention"])

    def consider(Z: Tensor) -> Tensor:
        return feed_forward(Z, activation=activation, **layer["feed_forward"])

    Y = add_norm(X, look_back, layer["norm_1"], norm, eps)
    Z = add_norm(Y, look_at_source, layer["norm_2"], norm, eps)
    return add_norm(Z, consider, layer["norm_3"], norm, eps)


def decoder(
    X: Tensor,
    M: Tensor,
    mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    layers: list[Weights],
    final_norm: Weights | None = None,
    **choices: Any,
) -> Tensor:
    """The layers one after another, all reading the same memory, then the final norm if there is one."""
    for layer in layers:
        X = decoder_layer(X, M, mask, memory_mask, layer=layer, **choices)
    return finished(X, final_norm, choices)
