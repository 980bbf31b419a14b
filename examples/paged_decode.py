"""Attention over a paged cache, verified: python examples/paged_decode.py."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import veriformer


def paged_attention(Q: Tensor, K_pages: Tensor, V_pages: Tensor, *, block_table: Tensor, lengths: Tensor) -> Tensor:
    """The n queries of a row are its last positions: (b, h, n, d_k), (p, page, h, d_k or d_v) -> (b, h, n, d_v)."""
    page, n, output = K_pages.shape[1], Q.shape[2], Q.new_zeros(*Q.shape[:3], V_pages.shape[-1])
    for r, length in enumerate(lengths.tolist()):
        blocks = block_table[r, : -(-length // page)]
        if not 0 <= length <= block_table.shape[1] * page or ((blocks < 0) | (blocks >= len(K_pages))).any():
            raise ValueError(f"row {r}: expected pages from 0 to {len(K_pages) - 1} and room for {length} positions")
        if length:
            k, v = (pages[blocks].flatten(0, 1)[:length].transpose(0, 1)[None] for pages in (K_pages, V_pages))
            seen = torch.ones(n, length, dtype=torch.bool, device=Q.device).tril(length - n)
            output[r] = scaled_dot_product_attention(Q[r][None], k, v, attn_mask=seen)[0]
    return output


if __name__ == "__main__":
    print(veriformer.verify(paged_attention, dtype="float32", claims="Y4,Y5,Y8"))
