"""Attention over a cache with room for more: each sequence has written some of its slots, and the others hold nothing.

    out = Attention(Q, K[s], V[s]), s the slots of the positions that the cache holds, and Q the last n of ℓ positions
    position p lies in slot p; in a ring of c slots in slot p mod c, where it takes the place of position p − c

Beyond the article. A static cache as compiled models have it, one length a row; a ring is the rolling cache of a sliding window
(Jiang et al. 2023, "Mistral 7B", arXiv:2310.06825, section 2).
"""

import numpy as np
from jaxtyping import Float64

from reference.attention import attention


def cached_attention(
    Q: Float64[np.ndarray, "n d_k"],
    K_cache: Float64[np.ndarray, "capacity d_k"],
    V_cache: Float64[np.ndarray, "capacity d_v"],
    length: int,
    *,
    ring: bool = False,
) -> Float64[np.ndarray, "n d_v"]:
    """Attend causally to the positions that the cache holds, in their order: query i is at position length − n + i.

    A query before the first position that is held may look nowhere and receives zeros. Raises ValueError for a length that the
    cache has no room for (`check_length`).
    """
    n, capacity = len(Q), len(K_cache)
    check_length(length, capacity, ring=ring)
    held = np.arange(max(length - capacity, 0), length)
    slots = held % max(capacity, 1)
    may_look = held[None, :] <= np.arange(length - n, length)[:, None]
    return attention(Q, K_cache[slots], V_cache[slots], may_look)


def check_length(length: int, capacity: int, *, ring: bool = False) -> None:
    """Raise ValueError for a length below 0, or beyond the slots of a cache that is no ring."""
    if length < 0 or (length > capacity and not ring):
        room = "0 or more" if ring else f"0 to {capacity}"
        raise ValueError(f"lengths: expected {room}, got {length}")
