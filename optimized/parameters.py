"""The learned tensors: the oracle's frozen dataclasses, field for field, holding torch tensors of any dtype on any device.

A row vector is multiplied from the left, x @ W, as in the paper; so W_Q is (d_model, h·d_k), written h_d_k in the shapes, and
its columns d_k·i … d_k·(i+1) belong to head i. A bias that is None is not added.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

from jaxtyping import Float
from torch import Tensor

Activation = Literal["relu", "gelu", "gelu_tanh"]
Parameters = TypeVar("Parameters")


@dataclass(frozen=True)
class Architecture:
    """What is a choice and not a weight; the defaults are the paper's. Raises ValueError for a choice that is not offered."""

    h: int = 8
    norm: Literal["post", "pre"] = "post"  # LayerNorm after the residual sum (article, paper) or before the sublayer
    activation: Activation = "relu"
    eps: float = 1e-5  # added to the variance, inside the root
    scale_embedding: bool = True  # multiply embeddings by √d_model

    def __post_init__(self) -> None:
        if self.h < 1:
            raise ValueError(f"h: expected at least one head, got {self.h}")
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm: expected 'post' or 'pre', got {self.norm!r}")
        if self.activation not in ("relu", "gelu", "gelu_tanh"):
            raise ValueError(f"activation: expected 'relu', 'gelu' or 'gelu_tanh', got {self.activation!r}")


PAPER = Architecture()


@dataclass(frozen=True)
class MultiHeadParameters:
    """The projections of all heads side by side, and the matrix that mixes the heads (section 3.2.2)."""

    W_Q: Float[Tensor, "d_model h_d_k"]
    W_K: Float[Tensor, "d_model h_d_k"]
    W_V: Float[Tensor, "d_model h_d_v"]
    W_O: Float[Tensor, "h_d_v d_model"]
    b_Q: Float[Tensor, " h_d_k"] | None = None
    b_K: Float[Tensor, " h_d_k"] | None = None
    b_V: Float[Tensor, " h_d_v"] | None = None
    b_O: Float[Tensor, " d_model"] | None = None


@dataclass(frozen=True)
class SelfAttentionParameters:
    """Of attention within one sequence, its projections side by side in one matrix: `optimized.packing` makes them so."""

    W_QKV: Float[Tensor, "d_model h_d_k_h_d_k_h_d_v"]
    W_O: Float[Tensor, "h_d_v d_model"]
    b_QKV: Float[Tensor, " h_d_k_h_d_k_h_d_v"] | None = None
    b_O: Float[Tensor, " d_model"] | None = None


@dataclass(frozen=True)
class NormParameters:
    """Gain and bias of one LayerNorm, a number per feature."""

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]


@dataclass(frozen=True)
class FeedForwardParameters:
    """The two linear maps of the feed-forward step (section 3.3)."""

    W_1: Float[Tensor, "d_model d_ff"]
    b_1: Float[Tensor, " d_ff"]
    W_2: Float[Tensor, "d_ff d_model"]
    b_2: Float[Tensor, " d_model"]


@dataclass(frozen=True)
class EncoderLayerParameters:
    """Self-attention and feed-forward, each with its add & norm (figure 1, left)."""

    self_attention: MultiHeadParameters | SelfAttentionParameters
    norm_1: NormParameters
    feed_forward: FeedForwardParameters
    norm_2: NormParameters


@dataclass(frozen=True)
class DecoderLayerParameters:
    """Masked self-attention, cross-attention and feed-forward, each with its add & norm (figure 1, right)."""

    self_attention: MultiHeadParameters | SelfAttentionParameters
    norm_1: NormParameters
    cross_attention: MultiHeadParameters
    norm_2: NormParameters
    feed_forward: FeedForwardParameters
    norm_3: NormParameters


@dataclass(frozen=True)
class TransformerParameters:
    """Every learned number of the whole. `W_out` None ties the output projection to the target embedding."""

    source_embedding: Float[Tensor, "source_vocab d_model"]
    target_embedding: Float[Tensor, "vocab d_model"]
    encoder: tuple[EncoderLayerParameters, ...]
    decoder: tuple[DecoderLayerParameters, ...]
    W_out: Float[Tensor, "d_model vocab"] | None = None
    b_out: Float[Tensor, " vocab"] | None = None
    encoder_norm: NormParameters | None = None  # a last norm after the stack, as pre-norm needs and nn.Transformer has
    decoder_norm: NormParameters | None = None


def map_tensors(change: Callable[[Tensor], Tensor], parameters: Parameters) -> Parameters:
    """The same parameters with `change` applied to every tensor: `map_tensors(lambda W: W.to("cuda"), parameters)`."""
    changed: Any = parameters
    if isinstance(parameters, Tensor):
        changed = change(parameters)
    elif isinstance(parameters, tuple):
        changed = tuple(map_tensors(change, part) for part in parameters)
    elif is_dataclass(parameters):
        parts = {field.name: map_tensors(change, getattr(parameters, field.name)) for field in fields(parameters)}
        changed = type(parameters)(**parts)  # type: ignore[call-arg]
    elif parameters is not None:
        raise TypeError(f"parameters: expected tensors, got a {type(parameters).__name__}, which cannot be changed")
    return changed


def tensors(parameters: Any) -> list[Tensor]:
    """Every tensor of some parameters, as an optimizer wants them."""
    if isinstance(parameters, Tensor):
        return [parameters]
    if is_dataclass(parameters):
        parameters = tuple(getattr(parameters, field.name) for field in fields(parameters))
    if not isinstance(parameters, tuple | list | None):
        raise TypeError(f"parameters: expected tensors, got a {type(parameters).__name__}, which cannot be trained")
    return [tensor for part in parameters or () for tensor in tensors(part)]
