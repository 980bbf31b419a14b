"""A packed kernel, verified: python examples/packed_kernel.py."""

import torch
import veriformer


def packed_attention(Q, K, V, *, cu_seqlens_q, cu_seqlens_k, causal=False):  # (t, h, d_k), (u, h, d_k), (u, h, d_v)
    if len(cu_seqlens_q) != len(cu_seqlens_k):
        raise ValueError(f"expected as many sequences of keys as of queries, got {len(cu_seqlens_k)} and {len(cu_seqlens_q)} bounds")
    if any(cu[0] or cu[-1] != len(X) or (cu.diff() < 0).any() for cu, X in ((cu_seqlens_q, Q), (cu_seqlens_k, K))):
        raise ValueError("cu_seqlens: expected numbers that begin at 0, never decrease and end at the number of rows")
    output = Q.new_zeros(*Q.shape[:2], V.shape[-1])
    for r in range(len(cu_seqlens_q) - 1):
        q, k, v = (X[cu[r] : cu[r + 1]].transpose(0, 1) for X, cu in ((Q, cu_seqlens_q), (K, cu_seqlens_k), (V, cu_seqlens_k)))
        if q.numel() and k.numel():
            rows = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)[0]
            output[cu_seqlens_q[r] : cu_seqlens_q[r + 1]] = rows.transpose(0, 1)
    return output


if __name__ == "__main__":
    print(veriformer.verify(packed_attention, dtype="float32", claims="Y3,Y5"))
