"""The fast implementation behind the common face."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optimized import parameters as column
from optimized import tuned
from optimized.attention import attention
from optimized.decoder import decoder, decoder_layer
from optimized.embedding import embedding
from optimized.encoder import encoder, encoder_layer
from optimized.feed_forward import feed_forward
from optimized.generation import Writer, generate
from optimized.mask import causal_mask
from optimized.multi_head import concat_heads, multi_head, multi_head_with_weights, split_heads
from optimized.output_projection import next_token, output_projection
from optimized.packed import can_pack
from optimized.packing import Layout, pack
from optimized.parameters import Architecture, NormParameters, Parameters
from optimized.positional_encoding import positional_encoding
from optimized.residual_norm import layer_norm, residual_norm
from optimized.softmax import softmax
from optimized.training import trainable
from optimized.transformer import transformer
from properties.implementations.autograd import Differentiated
from properties.implementations.conventions import OURS
from properties.implementations.impl import DTYPES
from properties.implementations.weights import Nested, built, mapped, nested
from properties.steps import BEYOND, STEPS


def _norm(norm: Nested | None) -> NormParameters | None:
    return None if norm is None else NormParameters(**norm)


class Optimized(Differentiated):
    """`optimized`, step by step: batched torch tensors in and out, all four dtypes, CPU and CUDA; backward by autograd.

    `kv_cache` gives an `optimized.generation.Writer`, which has every operation of `properties.implementations.cached.Cache`:
    prefill, step, rollback, reorder, leave, join, reset, copy and length. It makes room for two tokens at first, so that a
    program of a few steps sees it grow.
    """

    name = "optimized"
    arrays = "torch"
    dtypes = tuple(DTYPES)
    steps = frozenset(STEPS) - BEYOND - {"attention_cache"}
    options = frozenset({"multi_head.causal", "multi_head_with_weights.causal"})
    conventions = replace(OURS, subnormals=None)  # PyTorch's fused attention flushes its weights in some dtypes on some devices

    def laid_out(self, parameters: Parameters) -> Parameters:
        """The weights of a call as they are computed with: here as they came."""
        return parameters

    def _built(self, kind: str, parts: Nested) -> Any:
        return self.laid_out(built(column, kind, parts))

    def embedding(self, tokens: Tensor, *, table: Tensor, scale: bool = True) -> Tensor:
        """See `optimized.embedding`."""
        return embedding(tokens, table, scale)

    def positional_encoding(self, n: int, d_model: int, *, dtype: torch.dtype) -> Tensor:
        """See `optimized.positional_encoding`."""
        return positional_encoding(torch.arange(n), d_model, dtype)

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `optimized.attention`."""
        return attention(Q, K, V, mask)

    def softmax(self, scores: Tensor) -> Tensor:
        """See `optimized.softmax`."""
        return softmax(scores)

    def mask(self, n: int, m: int) -> Tensor:
        """See `optimized.mask`."""
        return causal_mask(n, m)

    def split_heads(self, X: Tensor, h: int) -> Tensor:
        """See `optimized.multi_head`."""
        return split_heads(X, h)

    def concat_heads(self, heads: Tensor) -> Tensor:
        """See `optimized.multi_head`."""
        return concat_heads(heads)

    def multi_head(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **weights: Tensor
    ) -> Tensor:
        """See `optimized.multi_head`."""
        return multi_head(X, M, self._built("MultiHeadParameters", weights), h, mask, causal)

    def multi_head_with_weights(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `optimized.multi_head`."""
        return multi_head_with_weights(X, M, self._built("MultiHeadParameters", weights), h, mask, causal)

    def layer_norm(self, X: Tensor, *, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        """See `optimized.residual_norm`."""
        return layer_norm(X, NormParameters(gain, bias), eps)

    def residual_norm(self, X: Tensor, Y: Tensor, *, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        """See `optimized.residual_norm`; Y is what the sublayer gave."""
        return residual_norm(X, lambda _: Y, NormParameters(gain, bias), eps)

    def feed_forward(self, X: Tensor, *, activation: Any = "relu", **weights: Tensor) -> Tensor:
        """See `optimized.feed_forward`."""
        return feed_forward(X, self._built("FeedForwardParameters", weights), activation)

    def encoder_layer(self, X: Tensor, mask: Tensor | None = None, *, layer: Nested, **choices: Any) -> Tensor:
        """See `optimized.encoder`."""
        return encoder_layer(X, self._built("EncoderLayerParameters", layer), Architecture(**choices), mask)

    def encoder(
        self, X: Tensor, mask: Tensor | None = None, *, layers: list[Nested], final_norm: Nested | None = None, **choices: Any
    ) -> Tensor:
        """See `optimized.encoder`."""
        stack = [self._built("EncoderLayerParameters", layer) for layer in layers]
        return encoder(X, stack, Architecture(**choices), mask, _norm(final_norm))

    def decoder_layer(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, memory_mask: Tensor | None = None, *, layer: Nested, **choices: Any
    ) -> Tensor:
        """See `optimized.decoder`."""
        return decoder_layer(X, M, self._built("DecoderLayerParameters", layer), Architecture(**choices), mask, memory_mask)

    def decoder(
        self,
        X: Tensor,
        M: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        layers: list[Nested],
        final_norm: Nested | None = None,
        **choices: Any,
    ) -> Tensor:
        """See `optimized.decoder`."""
        stack = [self._built("DecoderLayerParameters", layer) for layer in layers]
        return decoder(X, M, stack, Architecture(**choices), mask, memory_mask, _norm(final_norm))

    def output_projection(self, X: Tensor, *, W: Tensor, b: Tensor | None = None) -> Tensor:
        """See `optimized.output_projection`."""
        return output_projection(X, self.laid_out(W), b)

    def next_token(self, X: Tensor, *, W: Tensor, b: Tensor | None = None) -> Tensor:
        """See `optimized.output_projection`."""
        return next_token(output_projection(X, self.laid_out(W), b))

    def transformer(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        *,
        parameters: Nested,
        **choices: Any,
    ) -> Tensor:
        """See `optimized.transformer`."""
        return transformer(
            source, target, self._built("TransformerParameters", parameters), Architecture(**choices), source_mask, target_mask
        )

    def gradients(self, source: Tensor, target: Tensor, *, parameters: Nested, direction: Tensor, **choices: Any) -> Nested:
        """Autograd's gradient of Σ direction · logits by every parameter, as nested dicts like `parameters`."""
        weights = trainable(built(column, "TransformerParameters", parameters))
        logits = transformer(source, target, weights, Architecture(**choices))
        (direction * logits).sum().backward()
        return mapped(lambda W: torch.zeros_like(W) if W.grad is None else W.grad, nested(weights))

    def generation(
        self,
        source: Tensor,
        source_mask: Tensor | None = None,
        *,
        parameters: Nested,
        bos: int,
        eos: int,
        length: int,
        **choices: Any,
    ) -> Tensor:
        """See `optimized.generation`."""
        return generate(
            source,
            self._built("TransformerParameters", parameters),
            Architecture(**choices),
            bos=bos,
            eos=eos,
            length=length,
            source_mask=source_mask,
        )

    def kv_cache(self, source: Tensor, source_mask: Tensor | None = None, *, parameters: Nested, **choices: Any) -> Writer:
        """See `optimized.generation.Writer`."""
        return Writer(source, self._built("TransformerParameters", parameters), Architecture(**choices), source_mask, capacity=2)


WITH_PRODUCTS = frozenset(
    {
        *("multi_head", "multi_head_with_weights", "feed_forward", "output_projection", "next_token", "encoder_layer"),
        *("encoder", "decoder_layer", "decoder", "transformer", "generation", "kv_cache"),
    }
)


class InnerProduct(Optimized):
    """`optimized` packed for oneDNN's inner product, whatever would be fastest: the steps with products, without gradients.

    `optimized.packing` chooses among layouts; those with products of their own are verified. In the others a matrix is an ordinary
    tensor that lies in memory in another way, and `optimized` itself is given such ones.
    """

    name = "optimized.inner_product"
    layout: Layout = "inner_product"
    dtypes = tuple(name for name, dtype in DTYPES.items() if can_pack(dtype))
    steps = WITH_PRODUCTS

    def laid_out(self, parameters: Parameters) -> Parameters:
        """For 16 rows, which few calls have."""
        return pack(parameters, rows=16, layout=self.layout)


class Convolution(InnerProduct):
    """`optimized` packed for oneDNN's convolution."""

    name = "optimized.convolution"
    layout: Layout = "convolution"


class Tuned(InnerProduct):
    """`optimized` packed for the tuned tier's product; without a compiler it offers no step."""

    name = "optimized.tuned"
    layout: Layout = "panels"
    dtypes = tuple(name for name, dtype in DTYPES.items() if dtype in tuned.dtypes())
    steps = frozenset() if tuned.missing() else WITH_PRODUCTS
