"""A growing cache around torch's attention, whose causal mask for the last of many tokens is `causal_lower_right`."""

import torch
from torch import Tensor
from torch.nn import functional as F


class TorchCache:
    """A `properties.implementations.cached.AttentionCache`: keys and values of all tokens so far, never written in place."""

    def __init__(self, K: Tensor, V: Tensor) -> None:
        self.reset(K, V)

    @property
    def length(self) -> int:
        """How many tokens each row has."""
        return self.K.shape[2]

    def reset(self, K: Tensor, V: Tensor) -> None:
        """Begin with these."""
        self.K, self.V = K, V

    def attend(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """One call for all k tokens."""
        from torch.nn.attention.bias import causal_lower_right  # here: it imports torch's compiler, which takes 3 s

        self.K, self.V = torch.cat([self.K, K], dim=2), torch.cat([self.V, V], dim=2)
        return F.scaled_dot_product_attention(Q, self.K, self.V, attn_mask=causal_lower_right(Q.shape[2], self.length))

    def rollback(self, length: int) -> None:
        """The first `length` tokens."""
        if length < 0:
            raise ValueError(f"length: expected at least 0, got {length}")
        self.K, self.V = self.K[:, :, :length], self.V[:, :, :length]

    def reorder(self, rows: Tensor) -> None:
        """These rows, in this order."""
        self.K, self.V = self.K[rows], self.V[rows]

    def leave(self, rows: Tensor) -> None:
        """The other rows."""
        staying = torch.ones(len(self.K), dtype=torch.bool, device=rows.device)
        staying[rows] = False  # raises for a row that is not there
        self.reorder(staying.nonzero()[:, 0])

    def join(self, other: "TorchCache") -> None:
        """Its rows behind one's own."""
        self.K, self.V = torch.cat([self.K, other.K]), torch.cat([self.V, other.V])

    def copy(self) -> "TorchCache":
        """The same tensors: they are never written to."""
        return TorchCache(self.K, self.V)
