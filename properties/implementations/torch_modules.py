"""torch's own modules: nn.MultiheadAttention, the Transformer's layers and stacks, and nn.Transformer, on each of their two paths.

In training mode (dropout 0) they run operator by operator; in evaluation mode and without gradients, where they may, through
fused kernels of their own (the "fast path"). Both must do the same. Their masks are True where a key is hidden.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from properties.implementations.conventions import Conventions
from properties.implementations.impl import DTYPES
from properties.implementations.weights import Nested, attention_to_torch, mapped, to_torch

CONVENTIONS = Conventions(
    mask_polarity="true_masks", fully_masked_row="zeros", eps="inside", layout="interleaved", non_finite_behind_mask="leaks"
)


def gelu_tanh(X: Tensor) -> Tensor:
    """The activation that torch's layers know only as a callable."""
    return F.gelu(X, approximate="tanh")


ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": gelu_tanh}


def attention_masks(mask: Tensor | None, b: int, h: int, n: int, m: int) -> tuple[Tensor | None, Tensor | None]:
    """A mask broadcastable to (b, h, n, m) as torch takes it: one about tokens of each sequence apart from all others."""
    if mask is None:
        return None, None
    if mask.ndim <= 2:
        return mask.expand(n, m), None
    if mask.ndim == 4 and mask.shape[1:3] == (1, 1):
        return None, mask[:, 0, 0].expand(b, m)
    return mask.expand(b, h, n, m).reshape(b * h, n, m), None


def causal_too(mask: Tensor | None, n: int, X: Tensor, m: int | None = None) -> Tensor:
    """What lies ahead hidden, besides what `mask` hides; of `m` keys where they are not as many as queries."""
    ahead = torch.ones(n, n if m is None else m, dtype=torch.bool, device=X.device).triu(1)
    return ahead if mask is None else mask | ahead


class _Modules:
    """What both paths have in common; a module is made for each call and run with the call's weights in place of its own."""

    arrays = "torch"
    dtypes = tuple(DTYPES)
    conventions = CONVENTIONS
    training: bool

    def _run(self, module: nn.Module, state: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.training):
            return functional_call(module.train(self.training), state, args, kwargs)


class _MultiHead(_Modules):
    """nn.MultiheadAttention. A bias that is None is zeros, unless all are.

    Its `is_causal` is a hint beside the causal mask, which must be handed over too. It would be taken for any other mask as well:
    where there is one it is not given.
    """

    steps = frozenset({"multi_head", "multi_head_with_weights"})
    options = frozenset({"multi_head.causal", "multi_head_with_weights.causal"})

    def multi_head(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **weights: Tensor | None
    ) -> Tensor:
        """Without weights: through `scaled_dot_product_attention`, or the fast path."""
        return self._layer(X, M, mask, causal, h, weights, need_weights=False)[0]

    def multi_head_with_weights(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, *, causal: bool = False, h: int, **weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """With the weights of each head: another path."""
        return self._layer(X, M, mask, causal, h, weights, need_weights=True, average_attn_weights=False)

    def _layer(
        self,
        X: Tensor,
        M: Tensor,
        mask: Tensor | None,
        causal: bool,
        h: int,
        weights: dict[str, Tensor | None],
        **asked: bool,
    ) -> Any:
        """Self-attention hands the same object over three times, as the fast path wants it."""
        (b, n, d_model), m = X.shape, M.shape[1]
        biased = any(weights[f"b_{name}"] is not None for name in "QKVO")
        module = nn.MultiheadAttention(d_model, h, bias=biased, batch_first=True, device=X.device, dtype=X.dtype)
        M = X if torch.equal(X, M) else M
        attn_mask, padding = attention_masks(mask, b, h, n, m)
        if causal:
            asked["is_causal"] = attn_mask is None
            attn_mask = causal_too(attn_mask, n, X, m)
        state = {
            name.removeprefix("."): tensor
            for name, tensor in attention_to_torch(weights, "").items()
            if biased or "bias" not in name
        }
        return self._run(module, state, X, M, M, key_padding_mask=padding, attn_mask=attn_mask, **asked)


NAN_WITH_WEIGHTS = {
    f"test_fully_masked_rows_of_{step}_with_weights_follow_the_declared_convention": (
        "asked for weights, it takes a softmax without a guard: a fully masked row is NaN, where without weights it is zeros"
    )
    for step in ("multi_head", "causal_multi_head")
}


class MultiHeadTrain(_MultiHead):
    """nn.MultiheadAttention in training mode."""

    name, training = "torch.multi_head.train", True
    known_failures: ClassVar[dict[str, str]] = NAN_WITH_WEIGHTS


class MultiHeadEval(_MultiHead):
    """nn.MultiheadAttention in evaluation mode, without gradients."""

    name, training = "torch.multi_head.eval", False
    known_failures: ClassVar[dict[str, str]] = NAN_WITH_WEIGHTS | dict.fromkeys(
        (
            "test_a_fully_masked_row_of_multi_head_follows_the_declared_convention",
            "test_fully_masked_rows_of_causal_multi_head_follow_the_declared_convention",
        ),
        "its fast path for self-attention gives NaN to a fully masked token, "
        "where training mode, and cross-attention in either mode, give zeros",
    )


class _Transformer(_Modules):
    """The layers, the stacks of them, and nn.Transformer between an embedding and a linear map."""

    steps = frozenset({"encoder_layer", "encoder", "decoder_layer", "decoder", "transformer"})

    def encoder_layer(self, X: Tensor, mask: Tensor | None = None, *, layer: Nested, **choices: Any) -> Tensor:
        """One nn.TransformerEncoderLayer."""
        attn_mask, padding = attention_masks(mask, X.shape[0], choices["h"], X.shape[1], X.shape[1])
        module = nn.TransformerEncoderLayer(**self._choices(layer, X, **choices))
        return self._run(
            module, self._state("encoder", [layer], prefix="layers.0."), X, src_mask=attn_mask, src_key_padding_mask=padding
        )

    def encoder(
        self, X: Tensor, mask: Tensor | None = None, *, layers: list[Nested], final_norm: Nested | None = None, **choices: Any
    ) -> Tensor:
        """An nn.TransformerEncoder of these layers."""
        attn_mask, padding = attention_masks(mask, X.shape[0], choices["h"], X.shape[1], X.shape[1])
        module, state = self._encoder(layers, final_norm, X, **choices)
        return self._run(module, state, X, mask=attn_mask, src_key_padding_mask=padding)

    def decoder_layer(
        self, X: Tensor, M: Tensor, mask: Tensor | None = None, memory_mask: Tensor | None = None, *, layer: Nested, **choices: Any
    ) -> Tensor:
        """One nn.TransformerDecoderLayer."""
        module = nn.TransformerDecoderLayer(**self._choices(layer, X, **choices))
        state = self._state("decoder", [layer], prefix="layers.0.")
        return self._run(module, state, X, M, **self._decoder_masks(X, M, mask, memory_mask, choices["h"]))

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
        """An nn.TransformerDecoder of these layers."""
        module, state = self._decoder(layers, final_norm, X, **choices)
        return self._run(module, state, X, M, **self._decoder_masks(X, M, mask, memory_mask, choices["h"]))

    def transformer(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        *,
        parameters: Nested,
        scale_embedding: bool = True,
        **choices: Any,
    ) -> Tensor:
        """An nn.Transformer on embeddings with positions; its output times W_out."""
        X, Y = (
            self._embedded(tokens, parameters[f"{side}_embedding"], scale_embedding)
            for tokens, side in ((source, "source"), (target, "target"))
        )
        encoder, of_encoder = self._encoder(parameters["encoder"], parameters.get("encoder_norm"), X, **choices)
        decoder, of_decoder = self._decoder(parameters["decoder"], parameters.get("decoder_norm"), Y, **choices)
        whole = nn.Transformer(X.shape[-1], choices["h"], custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
        state = {f"encoder.{name}": w for name, w in of_encoder.items()} | {f"decoder.{name}": w for name, w in of_decoder.items()}
        padding, target_padding = (None if real is None else ~real for real in (source_mask, target_mask))
        out = self._run(
            whole,
            state,
            X,
            Y,
            tgt_mask=causal_too(None, target.shape[1], Y),
            src_key_padding_mask=padding,
            tgt_key_padding_mask=target_padding,
            memory_key_padding_mask=padding,
        )
        W_out = parameters.get("W_out")
        return F.linear(out, parameters["target_embedding"] if W_out is None else W_out.T, parameters.get("b_out"))

    def _encoder(
        self, layers: list[Nested], final_norm: Nested | None, X: Tensor, **choices: Any
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        layer = nn.TransformerEncoderLayer(**self._choices(layers[0], X, **choices))
        module = nn.TransformerEncoder(layer, len(layers), self._norm(final_norm, X, **choices))
        return module, self._state("encoder", layers, final_norm)

    def _decoder(
        self, layers: list[Nested], final_norm: Nested | None, X: Tensor, **choices: Any
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        layer = nn.TransformerDecoderLayer(**self._choices(layers[0], X, **choices))
        module = nn.TransformerDecoder(layer, len(layers), self._norm(final_norm, X, **choices))
        return module, self._state("decoder", layers, final_norm)

    @staticmethod
    def _state(stack: str, layers: list[Nested], final_norm: Nested | None = None, prefix: str = "") -> dict[str, Tensor]:
        parts = {"encoder": [], "decoder": [], stack: layers, f"{stack}_norm": final_norm}
        return {name.removeprefix(f"{stack}.{prefix}"): tensor for name, tensor in to_torch(parts).items()}

    @staticmethod
    def _choices(
        layer: Nested, X: Tensor, *, h: int, norm: str = "post", activation: str = "relu", eps: float = 1e-5
    ) -> dict[str, Any]:
        return {
            "d_model": X.shape[-1],
            "nhead": h,
            "dim_feedforward": layer["feed_forward"]["W_1"].shape[1],
            "dropout": 0.0,
            "activation": ACTIVATIONS[activation],
            "layer_norm_eps": eps,
            "batch_first": True,
            "norm_first": norm == "pre",
            "device": X.device,
            "dtype": X.dtype,
        }

    @staticmethod
    def _norm(final_norm: Nested | None, X: Tensor, *, eps: float = 1e-5, **_: Any) -> nn.LayerNorm | None:
        return None if final_norm is None else nn.LayerNorm(X.shape[-1], eps=eps, device=X.device, dtype=X.dtype)

    @staticmethod
    def _decoder_masks(X: Tensor, M: Tensor, mask: Tensor | None, memory_mask: Tensor | None, h: int) -> dict[str, Tensor | None]:
        (b, n, _), m = X.shape, M.shape[1]
        attn_mask, padding = attention_masks(mask, b, h, n, n)
        memory_attn_mask, memory_padding = attention_masks(memory_mask, b, h, n, m)
        return {
            "tgt_mask": causal_too(attn_mask, n, X),
            "tgt_key_padding_mask": padding,
            "memory_mask": memory_attn_mask,
            "memory_key_padding_mask": memory_padding,
        }

    @staticmethod
    def _embedded(tokens: Tensor, table: Tensor, scale: bool) -> Tensor:
        d_model = table.shape[1]
        rows = F.embedding(tokens, table) * (d_model**0.5 if scale else 1.0)
        frequencies = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64, device=tokens.device) / d_model)
        angles = torch.arange(tokens.shape[1], dtype=torch.float64, device=tokens.device)[:, None] * frequencies
        return rows + torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(table.dtype)


class TransformerTrain(_Transformer):
    """torch's Transformer in training mode; its gradients are autograd's."""

    name, training = "torch.transformer.train", True
    steps = _Transformer.steps | {"gradients"}

    def gradients(self, source: Tensor, target: Tensor, *, parameters: Nested, direction: Tensor, **choices: Any) -> Nested:
        """Of the sum of direction times logits, with respect to every parameter; zeros for one that is not reached."""
        leaves = mapped(lambda tensor: tensor.detach().requires_grad_(), parameters)
        (direction * self.transformer(source, target, parameters=leaves, **choices)).sum().backward()
        return mapped(lambda tensor: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad, leaves)


class TransformerEval(_Transformer):
    """torch's Transformer in evaluation mode, without gradients."""

    name, training = "torch.transformer.eval", False
    known_failures: ClassVar[dict[str, str]] = {
        "test_padding_tokens_are_encoded_as_the_oracle_does": (
            "nn.TransformerEncoder leaves tokens that fill up the length out of its fast path (nested tensors) and gives zeros for "
            "their rows, where training mode encodes them"
        ),
        "test_fully_masked_padding_tokens_influence_nobody": (
            "the fast path of its layers gives NaN to a fully masked token, and the next layer hands it on to every token, "
            "where training mode gives zeros"
        ),
    }
