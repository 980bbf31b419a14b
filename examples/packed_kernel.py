"""A packed kernel, verified: python examples/packed_kernel.py."""

from itertools import pairwise

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import veriformer


def packed_attention(
    Q: Tensor, K: Tensor, V: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, causal: bool = False
) -> Tensor:
    """Each sequence attends to its own keys: (t, h, d_k), (u, h, d_k), (u, h, d_v) -> (t, h, d_v)."""
    queries, keys, output = cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), Q.new_zeros(*Q.shape[:2], V.shape[-1])
    possible = all(at == sorted(at) and at[0] == 0 and at[-1] == len(X) for at, X in ((queries, Q), (keys, K)))
    if not possible or len(queries) != len(keys):
        raise ValueError(f"cu_seqlens: expected 0 to {len(Q)} and 0 to {len(K)}, never decreasing, got {queries} and {keys}")
    for (first, last), (start, stop) in zip(pairwise(queries), pairwise(keys), strict=True):
        q, k, v = (X.transpose(0, 1)[None] for X in (Q[first:last], K[start:stop], V[start:stop]))
        if first < last and start < stop:
            output[first:last] = scaled_dot_product_attention(q, k, v, is_causal=causal)[0].transpose(0, 1)
    return output


if __name__ == "__main__":
    print(veriformer.verify(packed_attention, dtype="float32", claims="Y3,Y5"))
