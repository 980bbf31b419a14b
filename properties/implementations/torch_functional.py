"""torch's own functions, each for the step it computes: attention, softmax, layer norm, embedding, linear maps, GELU."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from properties.implementations.autograd import Differentiated
from properties.implementations.conventions import Conventions
from properties.implementations.impl import DTYPES
from properties.verdicts import NotOffered

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda X: F.gelu(X, approximate="tanh")}


class TorchFunctional(Differentiated):
    """`torch.nn.functional`, with as little of ours around it as the signatures of the steps allow; backward by autograd."""

    name = "torch.sdpa"
    arrays = "torch"
    dtypes = tuple(DTYPES)
    steps = frozenset({"attention", "mask", "softmax", "layer_norm", "embedding", "feed_forward", "output_projection"}) | {
        "softmax_backward",
        "layer_norm_backward",
        "feed_forward_backward",
    }  # attention's backward is seen on `optimized`, which makes the same call
    conventions = Conventions(
        mask_polarity="true_attends",
        fully_masked_row="zeros",
        fully_masked_softmax="nan",
        eps="inside",
        non_finite_behind_mask="leaks",
        non_finite_masked_key="leaks",
    )
    known_failures: ClassVar[dict[str, str]] = {
        f"{prop}@{dtype}": "on the CPU the backward of F.layer_norm keeps the mean and 1/√variance of a row in the rows' dtype, "
        "and sums the gradients of gain and bias in it: of 300 rows of ones, bfloat16 makes 256"
        for prop in ("test_layer_norm_backward_agrees_with_the_oracle", "test_gain_and_bias_learn_from_every_row")
        for dtype in ("bfloat16", "float16")
    }

    def attention(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
        """One call, whichever kernel torch picks. Of masks it takes those of two axes or more."""
        if mask is not None and mask.ndim < 2:
            raise NotOffered(f"a mask of shape {tuple(mask.shape)}")
        return F.scaled_dot_product_attention(Q, K, V, attn_mask=mask)

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
