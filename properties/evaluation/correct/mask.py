"""The causal mask and the masks of padding; True = attend."""

import torch
from torch import Tensor


def mask(n: int, m: int) -> Tensor:
    """Token i sees tokens 0 … i; with m ≠ n both sequences begin at the same token."""
    query, key = torch.arange(n)[:, None], torch.arange(m)[None, :]
    return key <= query


def of_padding(real: Tensor | None) -> Tensor | None:
    """A mask (b, 1, 1, m) under which everybody sees the real tokens alone."""
    if real is None:
        return None
    return real[:, None, None, :]


def both(first: Tensor, second: Tensor | None) -> Tensor:
    """What both masks allow."""
    return first if second is None else first & second
