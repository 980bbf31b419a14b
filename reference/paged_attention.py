"""Attention over paged keys and values: each sequence's keys lie in pages of fixed size, found through a table of blocks.

    K_r = K_pages[T_r0], K_pages[T_r1], … one after another, the first ℓ_r rows of them;  V_r likewise
    out_r = Attention(Q_r, K_r, V_r), where the n queries are the last n of the ℓ_r positions

Beyond the article. Kwon et al. (2023), "Efficient Memory Management for Large Language Model Serving with PagedAttention",
section 4.1. What lies behind position ℓ_r, in the last page or in others, is nobody's.
"""

import numpy as np
from jaxtyping import Float64, Int

from reference.attention import attention
from reference.packed_attention import aligned_causal_mask


def paged_attention(
    Q: Float64[np.ndarray, "n d_k"],
    K_pages: Float64[np.ndarray, "p page d_k"],
    V_pages: Float64[np.ndarray, "p page d_v"],
    blocks: Int[np.ndarray, " w"],
    length: int,
) -> Float64[np.ndarray, "n d_v"]:
    """Gather the pages of one sequence, cut them to its length, and attend causally: query i is at position length − n + i.

    A query before the first position (length < n) may look nowhere and receives zeros. Raises ValueError for a length or a
    page that there is none of (`check_pages`).
    """
    check_pages(blocks, length, *K_pages.shape[:2])
    page, n = K_pages.shape[1], len(Q)
    mine = blocks[: -(-length // page)]
    K = K_pages[mine].reshape(-1, K_pages.shape[-1])[:length]
    V = V_pages[mine].reshape(-1, V_pages.shape[-1])[:length]
    return attention(Q, K, V, aligned_causal_mask(n, length, "bottom_right"))


def check_pages(blocks: Int[np.ndarray, " w"], length: int, p: int, page: int) -> None:
    """Raise ValueError for a length that has no room in w pages, or a page in use that is none of the p; others are not read."""
    room = len(blocks) * page
    if not 0 <= length <= room:
        raise ValueError(f"lengths: expected 0 to {room} ({len(blocks)} pages of {page}), got {length}")
    mine = blocks[: -(-length // page)]
    if np.any((mine < 0) | (mine >= p)):
        raise ValueError(f"block_table: expected pages from 0 to {p - 1}, got {mine.tolist()}")
