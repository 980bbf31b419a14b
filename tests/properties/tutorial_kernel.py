"""A kernel with the limits of a flash-attention tutorial, which tests of domains vary."""

import math
from typing import Any

import torch

from properties.implementations.conventions import Conventions

TUTORIAL = {"d_k": (16, 32, 64, 128, 256), "d_v": "d_k", "n": "multiple of 128", "m": "n", "mask": None}
"""The limits of a flash-attention tutorial's kernel."""


def softmax_of(Q: torch.Tensor, K: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Weights, zeros for a fully masked row."""
    scores = Q @ K.mT / math.sqrt(Q.shape[-1])
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), -1).nan_to_num(0.0)


class Kernel:
    """A right kernel with a tutorial's limits, which refuses what is outside of them."""

    name, arrays, dtypes, steps = "kernel", "torch", ("float32", "bfloat16"), frozenset({"attention"})
    conventions, contract = Conventions(), None
    domain: Any = TUTORIAL

    def attention(self, Q, K, V, mask=None):
        """A tutorial's."""
        if mask is not None:
            raise NotImplementedError("no mask")
        if Q.shape[-1] not in TUTORIAL["d_k"] or V.shape[-1] != Q.shape[-1]:
            raise ValueError("head size must be one of 16, 32, 64, 128, 256")
        if Q.shape[2] % 128 or K.shape[2] != Q.shape[2]:
            raise ValueError("sequence length must be a multiple of 128")
        return self.answer(Q, K, V)

    def answer(self, Q, K, V):
        """Right."""
        return softmax_of(Q, K) @ V
