"""Grouped heads with a sliding window, verified: python examples/grouped_window.py."""

import torch
from torch import Tensor

import veriformer


class Kernel:
    """Query heads 0, 1, … read key heads 0, …; each query sees `left` keys before itself and `right` behind."""

    options = ("grouped_heads",)

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, window: tuple | None = None) -> Tensor:
        """(b, h, n, d_k), (b, g, m, d_k), (b, g, m, d_v) -> (b, h, n, d_v)."""
        K, V = (X.repeat_interleave(Q.shape[1] // X.shape[1], dim=1) for X in (K, V))
        scores = Q @ K.mT / Q.shape[-1] ** 0.5
        left, right = (K.shape[2] + Q.shape[2] if side is None else side for side in window or (None, None))
        distance = torch.arange(K.shape[2]) - torch.arange(Q.shape[2])[:, None]
        sees = (distance >= -left) & (distance <= right)
        sees = sees if mask is None else sees & mask
        return torch.softmax(scores.masked_fill(~sees, -torch.inf), dim=-1).nan_to_num(0.0) @ V


if __name__ == "__main__":
    print(veriformer.verify(Kernel, dtype="float32", claims="X4,X5,X9"))
