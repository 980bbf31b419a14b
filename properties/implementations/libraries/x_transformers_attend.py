"""x-transformers' `Attend`, with and without its flash path."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from typing import Any, ClassVar

from torch import Tensor


class Attend:
    """Matrix products and a softmax in float32."""

    flash = False
    dtypes = ("float64", "float32", "bfloat16", "float16")
    options: tuple[str, ...] = ("causal", "scale", "bias", "softcap", "sinks")
    conventions: ClassVar = {"mask_polarity": "true_attends"}

    def __init__(self) -> None:
        from x_transformers.attend import Attend as Module

        self.module = Module

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, softcap: float | None = None, sinks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """A mask and a bias of four axes; a bias is clamped with the scores, so that one and a softcap are not taken together."""
        if K.shape[1] != Q.shape[1]:
            raise NotImplementedError("grouped heads: query head i would read key head i mod g")
        if bias is not None and softcap is not None:
            raise NotImplementedError("a bias and softclamp_logits, which clamps their sum")
        options: dict[str, Any] = {"causal": causal, "scale": scale, "flash": self.flash}
        options |= {} if softcap is None else {"softclamp_logits": True, "logit_softclamp_value": softcap}
        options |= {} if sinks is None else {"heads": Q.shape[1], "head_learned_sink": True}
        module = self.module(**options).eval()
        if sinks is not None:
            module.head_attn_sink.data = sinks
        mask, bias = (None if each is None else each[(None,) * (4 - each.ndim)] for each in (mask, bias))
        return module(Q, K, V, mask=mask, attn_bias=bias)[0].detach()


class Flash(Attend):
    """torch's scaled_dot_product_attention; it has neither softclamp_logits nor sinks."""

    flash = True
    options = ("causal", "scale", "bias")

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """As above, without these two."""
        return super().attention(Q, K, V, mask, **options)
