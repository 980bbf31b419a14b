"""`torch.nn.attention.flex_attention`: options as functions of a score and of indices, as its documentation writes them."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


class Eager:
    """As it is called without `torch.compile`."""

    dtypes = ("float64", "float32", "bfloat16", "float16")
    options = ("causal", "scale", "bias", "window", "softcap", "slopes", "grouped_heads")
    conventions: ClassVar = {"mask_polarity": "true_attends", "causal_alignment": "top_left"}
    flex: Callable[..., Tensor] = staticmethod(flex_attention)

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, window: tuple[int | None, int | None] | None = None, softcap: float | None = None,
        slopes: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """score_mod: softcap, then bias and slopes. mask_mod: mask, causal and window."""
        (b, h, n, _), m = Q.shape, K.shape[2]
        seen, added = (None if each is None else each.expand(b, h, n, m).contiguous() for each in (mask, bias))
        left, right = (m + n if side is None else side for side in window or (None, None))

        def score_mod(s: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            s = s if softcap is None else softcap * torch.tanh(s / softcap)
            s = s if added is None else s + added[batch, head, i, j]
            return s if slopes is None else s - slopes[head] * (i - j).abs()

        def mask_mod(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            attends = (j >= i - left) & (j <= i + right) & ((j <= i) | (not causal))
            return attends if seen is None else attends & seen[batch, head, i, j]

        modified = score_mod if (softcap, bias, slopes) != (None,) * 3 else None
        masked = mask is not None or causal or window is not None
        block_mask = create_block_mask(mask_mod, b, h, n, m, device=str(Q.device)) if masked else None
        return self.flex(Q, K, V, modified, block_mask, scale, K.shape[1] != h)  # type: ignore[arg-type]


class Compiled(Eager):
    """As `torch.compile` makes it, for one shape after another."""

    dtypes = ("float32", "bfloat16", "float16")

    def __init__(self) -> None:
        torch._dynamo.config.recompile_limit = 10_000  # noqa: SLF001 (beyond it flex_attention would be eager again)
        self.flex = torch.compile(flex_attention, dynamic=True)
