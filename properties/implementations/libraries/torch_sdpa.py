"""`torch.nn.functional.scaled_dot_product_attention`, held to one of the kernels it would choose among on the CPU."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class Math:
    """The composite of matrix products and a softmax."""

    backend = SDPBackend.MATH
    dtypes = ("float64", "float32", "bfloat16", "float16")
    options: tuple[str, ...] = ("causal", "scale", "bias", "grouped_heads", "dropout_mask")
    conventions: ClassVar = {"mask_polarity": "true_attends", "causal_alignment": "top_left"}

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, dropout_mask: Tensor | None = None, dropout_p: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """It takes one of mask, bias and is_causal, and of masks those of two axes or more; a dropout mask underneath."""
        given = [each for each in (mask, bias) if each is not None]
        if len(given) + causal > 1:
            raise NotImplementedError("more than one of attn_mask (a mask or a bias) and is_causal")
        if given and given[0].ndim < 2:
            raise NotImplementedError(f"an attn_mask of shape {tuple(given[0].shape)}")
        options = {"is_causal": causal, "scale": scale, "enable_gqa": K.shape[1] != Q.shape[1]}
        if dropout_mask is not None:  # underneath masks are added
            added = bias if mask is None else torch.zeros_like(mask, dtype=Q.dtype).masked_fill(~mask, -torch.inf)
            by_hand = torch._scaled_dot_product_attention_math  # type: ignore[attr-defined] # noqa: SLF001 (it takes a mask)
            return by_hand(Q, K, V, added, dropout_p, dropout_mask=dropout_mask, **options)[0]
        try:
            with sdpa_kernel(self.backend):
                return F.scaled_dot_product_attention(Q, K, V, attn_mask=given[0] if given else None, **options)
        except RuntimeError as error:
            if "No available kernel" not in str(error):  # for these arguments
                raise
            raise NotImplementedError(str(error)) from None


class Flash(Math):
    """The fused kernel."""

    backend = SDPBackend.FLASH_ATTENTION
    options = ("causal", "scale", "bias", "grouped_heads")

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """As above, without a dropout mask."""
        return super().attention(Q, K, V, mask, **options)
