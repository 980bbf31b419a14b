"""Softmax: scores become probabilities.

    softmax(s)_j = exp(s_j) / Σ_k exp(s_k)

Vaswani et al. (2017), section 3.2.1, equation (1); also the last step of section 3.4.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def softmax(scores: Float[Tensor, "... n m"]) -> Float[Tensor, "... n m"]:
    """One pass of torch's, kept from the rows it has no answer for: a row of nothing but −inf gets weights of 0.

    Such a row is scored 0 before the softmax and emptied after it, so that no NaN arises, in the gradients either.
    """
    blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(blind, 0.0), dim=-1)
    return weights.masked_fill(blind, 0.0)
