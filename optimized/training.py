"""Training: what is asked of the model while it learns. The oracle has no such file: it does not learn.

    loss = −Σ_w q(w) log softmax(logits)_w        q = (1 − ε) · [w is the token that follows] + ε / vocab

Vaswani et al. (2017), section 5.4; label smoothing is from Szegedy et al. (2016). The loop is the caller's (see `examples/`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optimized.parameters import TransformerParameters, map_tensors


def label_smoothed_loss(
    logits: Float[Tensor, "... n vocab"],
    tokens: Int[Tensor, "... n"],
    real: Bool[Tensor, "... n"] | None = None,
    smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    """The mean over the `real` tokens of a whole batch, in float32 at least. Tokens that only fill up the length teach nothing.

    Raises ValueError when no token is real: there would be no mean.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    losses = F.cross_entropy(logits.to(wide).flatten(0, -2), tokens.flatten(), reduction="none", label_smoothing=smoothing)
    if real is not None:
        losses = losses[real.flatten()]
    if losses.numel() == 0:
        raise ValueError("real: expected at least one token to learn from, got none")
    return losses.mean()


def trainable(parameters: TransformerParameters) -> TransformerParameters:
    """A copy whose tensors collect gradients."""
    return map_tensors(lambda W: W.detach().clone().requires_grad_(), parameters)
