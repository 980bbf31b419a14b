"""`mlx.core.fast.scaled_dot_product_attention` on the CPU."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor


class Attention:
    """It computes the softmax in float32, whatever the dtype."""

    dtypes = ("float32", "bfloat16", "float16")
    options = ("causal", "scale", "bias", "sinks", "grouped_heads")
    conventions: ClassVar = {"mask_polarity": "true_attends", "causal_alignment": "bottom_right"}

    def __init__(self) -> None:
        import mlx.core as mx

        mx.set_default_device(mx.cpu)
        self.mx = mx

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, sinks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """One of mask, bias and "causal"; the scale it wants to be told."""
        given = ["causal"] * causal + [self._array(each) for each in (mask, bias) if each is not None]
        if len(given) > 1:
            raise NotImplementedError("more than one mask of: a mask, a bias, causal")
        found = self.mx.fast.scaled_dot_product_attention(
            *map(self._array, (Q, K, V)),
            scale=Q.shape[-1] ** -0.5 if scale is None else scale,
            mask=given[0] if given else None,
            sinks=None if sinks is None else self._array(sinks),
        )
        dtype = getattr(torch, str(found.dtype).removeprefix("mlx.core."))
        return torch.from_numpy(np.array(found.astype(self.mx.float32))).to(dtype)

    def _array(self, tensor: Tensor) -> Any:
        """In its own dtype: NumPy has no bfloat16, and float32 holds every number of it."""
        wide = tensor if tensor.dtype == torch.bool else tensor.float()
        return self.mx.array(wide.contiguous().numpy()).astype(
            getattr(self.mx, str(tensor.dtype).removeprefix("torch.").replace("bool", "bool_"))
        )
