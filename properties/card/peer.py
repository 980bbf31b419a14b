"""PyTorch's attention with the options that it has, to be asked what an implementation is asked."""

from torch import Tensor
from torch.nn import functional as F

from properties.implementations.torch_functional import TorchFunctional


class Sdpa(TorchFunctional):
    """`scaled_dot_product_attention` with `is_causal`, `scale`, a mask of numbers, and `enable_gqa`."""

    options = ("causal", "scale", "bias", "grouped_heads")

    def attention(
        self,
        Q: Tensor,
        K: Tensor,
        V: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """One call. A mask and numbers at once are not asked for."""
        groups = Q.shape[1] != K.shape[1]
        added = mask if bias is None else bias
        return F.scaled_dot_product_attention(Q, K, V, attn_mask=added, is_causal=causal, scale=scale, enable_gqa=groups)
