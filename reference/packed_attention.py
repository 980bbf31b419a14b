"""Attention over packed sequences: they stand one after another in one array, and each sees its own keys alone.

    out[q_r : q_{r+1}] = Attention(Q[q_r : q_{r+1}], K[k_r : k_{r+1}], V[k_r : k_{r+1}])

where q_0 = 0 ≤ q_1 ≤ … ≤ q_s = t are the cumulative lengths of s sequences of queries, and k_0 … k_s those of their keys. Beyond
the article: the interface of `flash_attn_varlen_func` (Dao-AILab/flash-attention). It is attention with a block-diagonal mask.
"""

from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int

from reference.attention import attention


def packed_attention(
    Q: Float64[np.ndarray, "t d_k"],
    K: Float64[np.ndarray, "u d_k"],
    V: Float64[np.ndarray, "u d_v"],
    cu_seqlens_q: Int[np.ndarray, " boundaries"],
    cu_seqlens_k: Int[np.ndarray, " boundaries"],
    causal: bool = False,
    alignment: Literal["top_left", "bottom_right"] = "top_left",
) -> Float64[np.ndarray, "t d_v"]:
    """Gather each sequence's rows and attend within them. A sequence without keys gives zeros, one without queries nothing.

    `causal` hides what comes later in the same sequence; where it has n queries and m ≠ n keys, both begin together
    (`alignment="top_left"`) or end together. Raises ValueError for lengths that are none (`check_cu_seqlens`).
    """
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, len(Q))
    check_cu_seqlens("cu_seqlens_k", cu_seqlens_k, len(K))
    rows = [attention(Q[:0], K[:0], V[:0])]  # of no sequence: no rows, but of the right width
    for (first, last), (start, stop) in zip(pairwise(cu_seqlens_q), pairwise(cu_seqlens_k), strict=True):
        n, m = int(last - first), int(stop - start)
        mask = aligned_causal_mask(n, m, alignment) if causal else None
        rows.append(attention(Q[first:last], K[start:stop], V[start:stop], mask))
    return np.concatenate(rows)


def aligned_causal_mask(n: int, m: int, alignment: Literal["top_left", "bottom_right"]) -> Bool[np.ndarray, "n m"]:
    """Query i sees key j where j ≤ i, or where both sequences end together j ≤ i + m − n. True means *may look*."""
    offset = m - n if alignment == "bottom_right" else 0
    return np.arange(m)[None, :] <= np.arange(n)[:, None] + offset


def check_cu_seqlens(name: str, cu_seqlens: Int[np.ndarray, " boundaries"], rows: int) -> None:
    """Raise ValueError unless the cumulative lengths begin at 0, never decrease, and end at the number of rows."""
    if not len(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != rows or np.any(np.diff(cu_seqlens) < 0):
        raise ValueError(f"{name}: expected numbers that begin at 0, never decrease and end at {rows}, got {cu_seqlens.tolist()}")
