"""transformers' attention functions, as its models call them, and BART's module around them."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor


class Function:
    """One of `ALL_ATTENTION_FUNCTIONS`, called as a model with grouped heads calls it."""

    dtypes = ("float64", "float32", "bfloat16", "float16")
    conventions: ClassVar = {"mask_polarity": "true_attends"}

    def __init__(self) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.llama import modeling_llama

        self.functions, self.eager = ALL_ATTENTION_FUNCTIONS, modeling_llama.eager_attention_forward

    def call(self, name: str, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None, scale: float | None, **given: Any) -> Tensor:
        """Its functions read of a module only these; they return the tokens before the heads, and the weights."""
        module = SimpleNamespace(num_key_value_groups=Q.shape[1] // K.shape[1], training=False)
        scaling = Q.shape[-1] ** -0.5 if scale is None else scale
        function = self.functions.get_interface(name, self.eager)
        return function(module, Q, K, V, mask, scaling=scaling, dropout=0.0, **given)[0].transpose(1, 2)


class Sdpa(Function):
    """torch's `scaled_dot_product_attention`."""

    options = ("causal", "scale", "bias", "grouped_heads")

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """A mask, which its models make causal themselves; or is_causal. The bias is its position_bias."""
        if causal and mask is not None:
            raise NotImplementedError("an attention_mask and is_causal: its models make one mask of both")
        given = {"position_bias": None if bias is None else bias.expand(*Q.shape[:3], K.shape[2])}
        mask = None if mask is None else mask.expand(Q.shape[0], Q.shape[1] if mask.ndim > 2 else 1, Q.shape[2], K.shape[2])
        return self.call("sdpa", Q, K, V, mask, scale, is_causal=causal, **given)


class Eager(Function):
    """Llama's own `eager_attention_forward`, which adds a mask to the scores."""

    options = ("scale", "bias", "grouped_heads")

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, scale: float | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """A mask as `masking_utils.eager_mask` makes it: the lowest finite number where no query attends."""
        if mask is not None and bias is not None:
            raise NotImplementedError("a mask and a bias: it adds one attention_mask")
        added = bias if mask is None else torch.where(mask, torch.zeros((), dtype=Q.dtype), torch.finfo(Q.dtype).min)
        return self.call("eager", Q, K, V, added, scale)


class BartSdpa:
    """`BartAttention`, whose attention is torch's."""

    dtypes = ("float64", "float32", "bfloat16", "float16")
    conventions: ClassVar = {"mask_polarity": "true_attends"}
    implementation = "sdpa"

    def __init__(self) -> None:
        import transformers
        from transformers.models.bart.modeling_bart import BartAttention

        self.module, config = BartAttention, transformers.BartConfig
        self.config: Any = config(attn_implementation=self.implementation)

    def multi_head(self, X: Tensor, M: Tensor, mask: Tensor | None = None, *, h: int, **weights: Tensor | None) -> Tensor:
        """Self-attention is called without key_value_states."""
        if weights["W_Q"].shape != weights["W_V"].shape or weights["W_Q"].shape[0] != weights["W_Q"].shape[1]:  # type: ignore[union-attr]
            raise NotImplementedError("heads that are not d_model / h wide")
        module = self.module(X.shape[-1], h, config=self.config).eval()
        for name, linear in {"Q": module.q_proj, "K": module.k_proj, "V": module.v_proj, "O": module.out_proj}.items():
            W, b = weights[f"W_{name}"], weights[f"b_{name}"]
            linear.weight = torch.nn.Parameter(W.mT)  # type: ignore[union-attr]
            linear.bias = None if b is None else torch.nn.Parameter(b)
        seen = None if mask is None else self._mask(mask.expand(X.shape[0], h, X.shape[1], M.shape[1]), X.dtype)
        return module(X, None if torch.equal(X, M) else M, attention_mask=seen)[0].detach()

    def _mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG002
        """As torch's function takes it."""
        return mask


class BartEager(BartSdpa):
    """`BartAttention` with its own `eager_attention_forward`."""

    implementation = "eager"

    def _mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """As `masking_utils.eager_mask` makes it."""
        return torch.where(mask, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)
