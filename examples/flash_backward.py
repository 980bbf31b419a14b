"""FlashAttention in plain PyTorch: the forward in blocks of keys, and a backward of its own that computes the weights again.

    veriformer verify examples/flash_backward.py --dtype float32
    veriformer verify examples/flash_backward.py --dtype float32 --claims B1,B2,B3,B4

Nothing of n × m is kept. The forward keeps its output O and, of each row, L = log Σ exp S; the backward gets the weights back as
exp(S − L), block by block (Dao 2023, "FlashAttention-2", algorithms 1 and 2). Not fast: a kernel's arithmetic, written to be read.
`attention_backward` is the step as veriformer asks for it; `attention` can be differentiated by autograd, too.
"""

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 32


def forward(Q: Tensor, K: Tensor, V: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """O and L, in float32 or float64; a fully masked row gets zeros, and L = 0."""
    scale = 1 / math.sqrt(Q.shape[-1])
    O = Q.new_zeros(*Q.shape[:-1], V.shape[-1])  # noqa: E741 (the paper's letter)
    largest, total = Q.new_full((*Q.shape[:-1], 1), -math.inf), Q.new_zeros(*Q.shape[:-1], 1)
    for first in range(0, K.shape[-2], BLOCK):
        keys = slice(first, first + BLOCK)
        S = (scale * Q @ K[..., keys, :].mT).masked_fill(~seen[..., keys], -math.inf)
        new = torch.maximum(largest, S.amax(dim=-1, keepdim=True))
        finite = torch.where(new == -math.inf, 0.0, new)
        P, before = torch.exp(S - finite), torch.exp(largest - finite)  # what was summed so far is rescaled
        O, total, largest = before * O + P @ V[..., keys, :], before * total + P.sum(dim=-1, keepdim=True), new  # noqa: E741
    some = total > 0
    total = torch.where(some, total, 1.0)
    return O / total, torch.where(some, largest + torch.log(total), 0.0)


def backward(dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, seen: Tensor, O: Tensor, L: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: E741
    """dQ, dK and dV: dQ adds up what each block of keys says, dK and dV are each block's own."""
    scale = 1 / math.sqrt(Q.shape[-1])
    D = (dO * O).sum(dim=-1, keepdim=True)  # Σ_j P_ij dP_ij, without P
    dQ, dK, dV = torch.zeros_like(Q), torch.empty_like(K), torch.empty_like(V)
    for first in range(0, K.shape[-2], BLOCK):
        keys = slice(first, first + BLOCK)
        S = (scale * Q @ K[..., keys, :].mT).masked_fill(~seen[..., keys], -math.inf)
        P = torch.exp(S - L)
        dP = dO @ V[..., keys, :].mT
        dS = P * (dP - D)
        dV[..., keys, :] = P.mT @ dO
        dK[..., keys, :] = scale * (dS.mT @ Q)
        dQ += scale * (dS @ K[..., keys, :])
    return dQ, dK, dV


def wide(*tensors: Tensor) -> list[Tensor]:
    """In at least float32: what a kernel accumulates in."""
    return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in tensors]


def written_out(mask: Tensor | None, Q: Tensor, K: Tensor) -> Tensor:
    """The mask as one truth value for every query and key of every head."""
    shape = (*Q.shape[:-1], K.shape[-2])
    return torch.ones(shape, dtype=torch.bool, device=Q.device) if mask is None else mask.expand(shape)


class FlashAttention(torch.autograd.Function):
    """For autograd."""

    @staticmethod
    def forward(ctx: Any, Q: Tensor, K: Tensor, V: Tensor, seen: Tensor) -> Tensor:
        """O, in Q's dtype."""
        O, L = forward(*wide(Q, K, V), seen=seen)  # noqa: E741
        ctx.save_for_backward(Q, K, V, seen, O, L)
        return O.to(Q.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """What was not asked for is thrown away by autograd."""
        Q, K, V, seen, O, L = ctx.saved_tensors  # noqa: E741
        dQ, dK, dV = backward(*wide(outputs[0], Q, K, V), seen=seen, O=O, L=L)
        return dQ.to(Q.dtype), dK.to(K.dtype), dV.to(V.dtype), None


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / √d_k) V; `mask` is True where a query attends."""
    return FlashAttention.apply(Q, K, V, written_out(mask, Q, K))  # type: ignore[return-value]


def attention_backward(dO: Tensor, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of Σ dO ∘ attention(Q, K, V, mask)."""
    seen = written_out(mask, Q, K)
    O, L = forward(*wide(Q, K, V), seen=seen)  # noqa: E741
    dQ, dK, dV = backward(*wide(dO, Q, K, V), seen=seen, O=O, L=L)
    return dQ.to(Q.dtype), dK.to(K.dtype), dV.to(V.dtype)
