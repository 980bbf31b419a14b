"""Masks: what a token may attend to. True means *attend*.

    scores_ij ← scores_ij where token i may attend to token j, −∞ elsewhere

Vaswani et al. (2017), section 3.2.3.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def causal_mask(n: int, m: int | None = None, device: torch.device | str | None = None) -> Bool[Tensor, "n m"]:
    """Made on the device where it is used. Word i sees itself and what came before; both sequences begin at the same token."""
    m = n if m is None else m
    return torch.arange(m, device=device) <= torch.arange(n, device=device)[:, None]


def padding_mask(real: Bool[Tensor, "b m"], n: int = 1) -> Bool[Tensor, "b 1 n m"]:
    """One row of the mask stands for all heads and all n tokens, without a copy: they may attend to the `real` tokens alone."""
    return real[:, None, None, :].expand(-1, 1, n, -1)


def both(first: Bool[Tensor, "..."] | None, second: Bool[Tensor, "..."] | None) -> Bool[Tensor, "..."] | None:
    """Masks of different batch axes are broadcast: what both allow; None allows everything."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def apply_mask(scores: Float[Tensor, "... n m"], mask: Bool[Tensor, "..."] | None) -> Float[Tensor, "... n m"]:
    """The mask is broadcast. −∞ goes in place of a hidden score, not on top of it: an overflowed score plus −∞ would be NaN."""
    return scores if mask is None else torch.where(mask, scores, -torch.inf)
