"""Softmax: scores become probabilities.

    softmax(s)_j = exp(s_j) / Σ_k exp(s_k)

Vaswani et al. (2017), section 3.2.1, equation (1); also the last step of section 3.4.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def softmax(scores: Float[Tensor, "... n m"]) -> Float[Tensor, "... n m"]:
    """torch's, kept from the rows it has no answer for: a row of nothing but −inf gets weights of 0.

    Of such a row torch makes NaN throughout, so that one column tells whether there is any. Then the row is scored 0 before the
    softmax and emptied after it, and no NaN arises in the gradients either. A compiler, which cannot look, always does so.
    """
    weights = torch.softmax(scores, dim=-1)
    if not torch.compiler.is_compiling() and not weights[..., :1].isnan().any():
        return weights
    fully_masked = (scores == -torch.inf).all(dim=-1, keepdim=True)
    return torch.softmax(scores.masked_fill(fully_masked, 0.0), dim=-1).masked_fill(fully_masked, 0.0)
