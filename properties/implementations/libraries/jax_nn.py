"""`jax.nn.dot_product_attention` on the CPU."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import os
from typing import Any, ClassVar

import torch
from torch import Tensor

os.environ.setdefault("JAX_PLATFORMS", "cpu")


class Attention:
    """It has tokens before heads, and values as wide as keys."""

    dtypes = ("float64", "float32", "bfloat16", "float16")
    options = ("causal", "scale", "bias", "window", "grouped_heads")
    conventions: ClassVar = {"mask_polarity": "true_attends"}
    domain: ClassVar = {"d_v": "d_k"}

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)  # or float64 would be float32
        static = ("scale", "is_causal", "local_window_size")
        self.jax, self.compiled = jax, jax.jit(jax.nn.dot_product_attention, static_argnames=static)

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, window: tuple[int | None, int | None] | None = None,
    ) -> Tensor:  # fmt: skip
        """A side of the window that is open is as long as both sequences."""
        if V.shape[-1] != K.shape[-1]:
            raise NotImplementedError("values of another width than keys")
        open_side = Q.shape[2] + K.shape[2]
        sides = None if window is None else tuple(open_side if side is None else side for side in window)
        found = self.compiled(
            *(self._array(X.transpose(1, 2)) for X in (Q, K, V)),
            *(None if X is None else self._array(X) for X in (bias, mask)),
            scale=scale, is_causal=causal, local_window_size=sides,
        )  # fmt: skip
        return torch.from_dlpack(found).transpose(1, 2)

    def _array(self, tensor: Tensor) -> Any:
        """The same numbers, in the same dtype."""
        return self.jax.dlpack.from_dlpack(tensor.contiguous())
