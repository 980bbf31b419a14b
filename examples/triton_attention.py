"""A flash attention in Triton, forward: `attention(Q, K, V, causal=False)`.

Rows of Q in blocks, keys and values in blocks past them, and the softmax's maximum and sum carried along; a block at the tail of
either sequence is masked. On a machine without a GPU Triton's interpreter runs it:

    $ pip install triton
    $ TRITON_INTERPRET=1 veriformer verify examples/triton_attention.py:attention --dtype float32

Dao et al., FlashAttention-2, 2023, algorithm 1.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false
# ruff: noqa: ANN001, ANN202 (a kernel's arguments are pointers and numbers, and it returns nothing)

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 16  # rows and keys; the least that a tensor core multiplies


@triton.jit
def _forward(
    Q, K, V, Y,
    q_b, q_h, q_n, q_d, k_b, k_h, k_m, k_d, v_b, v_h, v_m, v_d, o_b, o_h, o_n, o_d,
    h, n, m, d_k, d_v, scale,
    CAUSAL: tl.constexpr, N: tl.constexpr, M: tl.constexpr, D_K: tl.constexpr, D_V: tl.constexpr,
):  # fmt: skip
    """N rows of one head of one batch row. D_K and D_V are d_k and d_v rounded up to a power of two, at least 16."""
    first, b, head = tl.program_id(0) * N, tl.program_id(1) // h, tl.program_id(1) % h
    i, j = first + tl.arange(0, N), tl.arange(0, M)
    k_axis, v_axis = tl.arange(0, D_K), tl.arange(0, D_V)
    q_at = Q + b * q_b + head * q_h + i[:, None] * q_n + k_axis[None, :] * q_d
    q = tl.load(q_at, mask=(i[:, None] < n) & (k_axis[None, :] < d_k), other=0.0)
    highest = tl.full([N], -float("inf"), tl.float32)
    total, result = tl.zeros([N], tl.float32), tl.zeros([N, D_V], tl.float32)
    end = tl.minimum(m, first + N) if CAUSAL else m
    for start in range(0, end, M):
        key = start + j
        k_at = K + b * k_b + head * k_h + key[None, :] * k_m + k_axis[:, None] * k_d
        v_at = V + b * v_b + head * v_h + key[:, None] * v_m + v_axis[None, :] * v_d
        k = tl.load(k_at, mask=(key[None, :] < m) & (k_axis[:, None] < d_k), other=0.0)
        v = tl.load(v_at, mask=(key[:, None] < m) & (v_axis[None, :] < d_v), other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        attends = key[None, :] < m
        if CAUSAL:
            attends = attends & (key[None, :] <= i[:, None])
        scores = tl.where(attends, scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, decay = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        total = total * decay + tl.sum(weights, 1)
        result = result * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = higher
    o_at = Y + b * o_b + head * o_h + i[:, None] * o_n + v_axis[None, :] * o_d
    result = result / total[:, None]
    tl.store(o_at, result.to(Y.dtype.element_ty), mask=(i[:, None] < n) & (v_axis[None, :] < d_v))


def attention(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """(b, h, n, d_k), (b, h, m, d_k), (b, h, m, d_v) → (b, h, n, d_v). Raises NotImplementedError for a mask, and for no keys."""
    (b, h, n, d_k), (m, d_v) = Q.shape, V.shape[2:]
    if mask is not None:
        raise NotImplementedError("a mask; causal is one")
    if m == 0 or Q.dtype == torch.float64:
        raise NotImplementedError("no keys, or float64")
    result = torch.empty(b, h, n, d_v, dtype=Q.dtype, device=Q.device)
    if result.numel() == 0:
        return result
    wide_k, wide_v = (max(16, triton.next_power_of_2(d)) for d in (d_k, d_v))
    strides = [stride for X in (Q, K, V, result) for stride in X.stride()]
    grid = (triton.cdiv(n, BLOCK), b * h)
    sizes = {"CAUSAL": causal, "N": BLOCK, "M": BLOCK, "D_K": wide_k, "D_V": wide_v}
    _forward[grid](Q, K, V, result, *strides, h, n, m, d_k, d_v, 1 / math.sqrt(d_k), **sizes)  # type: ignore[index]
    return result


attention.dtypes = ("float32", "float16")  # type: ignore[attr-defined] # the interpreter has no bfloat16
