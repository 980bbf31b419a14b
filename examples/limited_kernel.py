"""A kernel with the limits of a tutorial's, verified within them: python examples/limited_kernel.py."""

import torch
from torch import Tensor

import veriformer


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """Heads of 16 to 128 features, a multiple of 128 tokens, no mask: (b, h, n, d) three times -> (b, h, n, d)."""
    if mask is not None:
        raise NotImplementedError("no mask")
    if Q.shape[-1] not in (16, 32, 64, 128) or Q.shape[2] % 128 or K.shape != Q.shape or V.shape != Q.shape:
        raise ValueError("expected 16, 32, 64 or 128 features and as many queries as keys, a multiple of 128")
    return torch.softmax(Q @ K.mT / Q.shape[-1] ** 0.5, dim=-1) @ V


if __name__ == "__main__":
    domain = {"d_k": (16, 32, 64, 128), "d_v": "d_k", "n": "multiple of 128", "m": "n", "mask": None}
    print(veriformer.verify(attention, dtype="float32", domain=domain))
