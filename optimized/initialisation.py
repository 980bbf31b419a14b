"""Random parameters to start from: Xavier-uniform matrices, zero biases, unit gains, N(0, 1/d_model) embeddings.

Glorot & Bengio (2010): a matrix with r rows and c columns is uniform in ±√(6 / (r + c)). The embedding's variance makes the
√d_model of section 3.4 give features of variance 1.
"""

import math

import torch
from torch import Tensor

from optimized.parameters import (
    DecoderLayerParameters,
    EncoderLayerParameters,
    FeedForwardParameters,
    MultiHeadParameters,
    NormParameters,
    TransformerParameters,
    map_tensors,
)


class _Draw:
    """The pieces of a Transformer, each drawn from one stream of random numbers."""

    def __init__(self, seed: int, d_model: int, d_ff: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.d_model, self.d_ff = d_model, d_ff

    def matrix(self, rows: int, columns: int) -> Tensor:
        uniform = torch.rand(rows, columns, dtype=torch.float64, generator=self.random)
        return (2 * uniform - 1) * math.sqrt(6.0 / (rows + columns))

    def table(self, tokens: int) -> Tensor:
        return torch.randn(tokens, self.d_model, dtype=torch.float64, generator=self.random) / math.sqrt(self.d_model)

    def zeros(self, width: int) -> Tensor:
        return torch.zeros(width, dtype=torch.float64)

    def multi_head(self) -> MultiHeadParameters:
        d = self.d_model
        return MultiHeadParameters(*(self.matrix(d, d) for _ in range(4)), *(self.zeros(d) for _ in range(4)))

    def norm(self) -> NormParameters:
        return NormParameters(torch.ones(self.d_model, dtype=torch.float64), self.zeros(self.d_model))

    def feed_forward(self) -> FeedForwardParameters:
        d, d_ff = self.d_model, self.d_ff
        return FeedForwardParameters(self.matrix(d, d_ff), self.zeros(d_ff), self.matrix(d_ff, d), self.zeros(d))

    def encoder_layer(self) -> EncoderLayerParameters:
        return EncoderLayerParameters(self.multi_head(), self.norm(), self.feed_forward(), self.norm())

    def decoder_layer(self) -> DecoderLayerParameters:
        return DecoderLayerParameters(
            self.multi_head(), self.norm(), self.multi_head(), self.norm(), self.feed_forward(), self.norm()
        )


def initialise(
    seed: int,
    *,
    vocab: int,
    source_vocab: int | None = None,
    d_model: int = 512,
    d_ff: int = 2048,
    layers: int = 6,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> TransformerParameters:
    """Drawn in float64 on the CPU and rounded once, so that a seed means the same model at every dtype and on every device.

    Not the oracle's numbers for that seed: NumPy and torch draw differently. Raises ValueError for a size that is not positive.
    """
    for name, size in {"vocab": vocab, "d_model": d_model, "d_ff": d_ff, "layers": layers}.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    draw = _Draw(seed, d_model, d_ff)
    drawn = TransformerParameters(
        source_embedding=draw.table(source_vocab or vocab),
        target_embedding=draw.table(vocab),
        encoder=tuple(draw.encoder_layer() for _ in range(layers)),
        decoder=tuple(draw.decoder_layer() for _ in range(layers)),
        W_out=None if tied else draw.matrix(d_model, vocab),
        b_out=draw.zeros(vocab),
    )
    return map_tensors(lambda W: W.to(device, dtype), drawn)
