"""torch's own functions, each for the step it computes: attention, softmax, layer norm, embedding, linear maps, GELU."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from properties.implementations.autograd import Differentiated
from properties.implementations.conventions import Conventions
from properties.implementations.impl import DTYPES
from properties.implementations.torch_cache import TorchCache
from properties.steps import BEYOND
from properties.verdicts import NotOffered

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda X: F.gelu(X, approximate="tanh")}


class TorchFunctional(Differentiated):
    """`torch.nn.functional`, with as little of ours around it as the signatures of the steps allow; backward by autograd."""

    name = "torch.sdpa"
    arrays = "torch"
    dtypes = tuple(DTYPES)
    steps = (
        frozenset({"attention", "mask", "softmax", "layer_norm", "embedding", "feed_forward", "output_projection"})
        | {"softmax_backward", "layer_norm_backward", "feed_forward_backward"}  # attention's is seen on `optimized`: the same call
        | BEYOND
        | {"attention_cache"}
    )
    options = frozenset({"causal", "scale", "bias", "grouped_heads", "packed_attention.causal", "cached_attention.ring"})
    conventions = Conventions(
        mask_polarity="true_attends",
        fully_masked_row="zeros",
        fully_masked_softmax="nan",
        eps="inside",
        non_finite_behind_mask="leaks",
        non_finite_masked_key="leaks",
    )
    known_failures: ClassVar[dict[str, str]] = {
        "test_hidden_keys_stay_hidden_at_every_scale": (
            "with is_causal, its fused kernel on CPU puts −∞ in before it scales: "
            "a scale of 0 or below gives NaN, or shows what is hidden"
        )
    } | {
        f"{prop}@{dtype}": "on the CPU the backward of F.layer_norm keeps the mean and 1/√variance of a row in the rows' dtype, "
        "and sums the gradients of gain and bias in it: of 300 rows of ones, bfloat16 makes 256"
        for prop in ("test_layer_norm_backward_agrees_with_the_oracle", "test_gain_and_bias_learn_from_every_row")
        for dtype in ("bfloat16", "float16")
    }

    def attention(
        self,
        Q: Tensor,
        K: Tensor,
        V: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """One call, whichever kernel torch picks. Of masks and biases it takes one, of two axes or more, and none with `causal`."""
        if mask is not None and bias is not None:
            raise NotOffered("a mask and a bias: there is one attn_mask")
        added = mask if bias is None else bias
        if added is not None and causal:
            raise NotOffered(f"a {'mask' if bias is None else 'bias'} with is_causal")
        if added is not None and added.ndim < 2:
            raise NotOffered(f"a {'mask' if bias is None else 'bias'} of shape {tuple(added.shape)}")
        grouped = Q.shape[-3] != K.shape[-3]
        return F.scaled_dot_product_attention(Q, K, V, attn_mask=added, is_causal=causal, scale=scale, enable_gqa=grouped)

    def mask(self, n: int, m: int) -> Tensor:
        """Which keys have a weight where `is_causal` is asked for and all scores are 0."""
        Q, K = torch.zeros(1, 1, n, 1), torch.zeros(1, 1, m, 1)
        return F.scaled_dot_product_attention(Q, K, torch.eye(m)[None, None], is_causal=True)[0, 0] > 0

    def softmax(self, scores: Tensor) -> Tensor:
        """Over the last axis."""
        return F.softmax(scores, dim=-1)

    def layer_norm(self, X: Tensor, *, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        """Over the last axis."""
        return F.layer_norm(X, X.shape[-1:], gain, bias, eps)

    def embedding(self, tokens: Tensor, *, table: Tensor, scale: bool = True) -> Tensor:
        """The look-up is torch's, the factor ours."""
        rows = F.embedding(tokens, table)
        return rows * table.shape[1] ** 0.5 if scale else rows

    def feed_forward(self, X: Tensor, *, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, activation: str = "relu") -> Tensor:
        """Two `linear` with `relu` or `gelu` between them."""
        return F.linear(ACTIVATIONS[activation](F.linear(X, W_1.T, b_1)), W_2.T, b_2)

    def output_projection(self, X: Tensor, *, W: Tensor, b: Tensor | None = None) -> Tensor:
        """One `linear`."""
        return F.linear(X, W.T, b)

    def log_sum_exp(self, Q: Tensor, K: Tensor, mask: Tensor | None = None) -> Tensor:
        """`torch.logsumexp` of the scores, in float32 for narrower dtypes, as kernels return it."""
        wide = torch.promote_types(Q.dtype, torch.float32)
        scores = Q.to(wide) @ K.to(wide).mT / Q.shape[-1] ** 0.5
        return torch.logsumexp(scores if mask is None else scores.masked_fill(~mask, -torch.inf), dim=-1)

    def packed_attention(
        self, Q: Tensor, K: Tensor, V: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, causal: bool = False
    ) -> Tensor:
        """One call for each sequence. Lengths are not checked beyond what slices of a tensor check."""
        output = Q.new_zeros(*Q.shape[:2], V.shape[-1])
        for first, last, start, stop in zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False):
            q, k, v = (X.transpose(0, 1)[None] for X in (Q[first:last], K[start:stop], V[start:stop]))
            if q.shape[2] and k.shape[2]:
                output[first:last] = F.scaled_dot_product_attention(q, k, v, is_causal=causal)[0].transpose(0, 1)
        return output

    def paged_attention(self, Q: Tensor, K_pages: Tensor, V_pages: Tensor, *, block_table: Tensor, lengths: Tensor) -> Tensor:
        """One call for each row, on its pages gathered."""
        page, n = K_pages.shape[1], Q.shape[2]
        output = Q.new_zeros(*Q.shape[:3], V_pages.shape[-1])
        for r, length in enumerate(lengths.tolist()):
            blocks = block_table[r, : -(-length // page)]
            k, v = (pages[blocks].flatten(0, 1)[:length].transpose(0, 1)[None] for pages in (K_pages, V_pages))
            seen = torch.ones(n, k.shape[2], dtype=torch.bool, device=Q.device).tril(k.shape[2] - n)
            if k.shape[2]:
                output[r] = F.scaled_dot_product_attention(Q[r : r + 1], k, v, attn_mask=seen)[0]
        return output

    def attention_cache(self, K: Tensor, V: Tensor) -> TorchCache:
        """See `properties.implementations.torch_cache`."""
        return TorchCache(K, V)

    def cached_attention(self, Q: Tensor, K_cache: Tensor, V_cache: Tensor, *, lengths: Tensor, ring: bool = False) -> Tensor:
        """One call for each row, on the slots that hold its positions. A length is not checked beyond what an index is."""
        n, capacity = Q.shape[2], K_cache.shape[2]
        output = Q.new_zeros(*Q.shape[:3], V_cache.shape[-1])
        for r, length in enumerate(lengths.tolist()):
            held = torch.arange(max(length - capacity, 0) if ring else 0, length, device=Q.device)
            slots = held % capacity if ring else held
            seen = held <= torch.arange(length - n, length, device=Q.device)[:, None]
            k, v = (cache[r : r + 1, :, slots] for cache in (K_cache, V_cache))
            if k.shape[2]:
                output[r] = F.scaled_dot_product_attention(Q[r : r + 1], k, v, attn_mask=seen)[0]
        return output
