"""Kernels of other shapes, whose own tests are scored: layers, other axes, other arguments."""

import pytest
from scored_project import project, statuses

TOKENS_FIRST = """
    import math
    import torch

    def attention(query, key, value, bias=None, mask=None, is_causal=False):
        scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return torch.einsum("bhnm,bmhd->bnhd", torch.softmax(scores, dim=-1), value)

    class Layer(torch.nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.causal = causal

        def forward(self, query, key, value, mask=None):
            return attention(query, key, value, mask=mask, is_causal=self.causal)
"""
TESTS_OF_TOKENS_FIRST = """
    import torch
    import kernels

    def sdpa(q, k, v, **options):
        return torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), **options).transpose(1, 2)

    def qkv(n, m):
        torch.manual_seed(0)
        return torch.randn(2, n, 3, 8), torch.randn(2, m, 3, 8), torch.randn(2, m, 3, 4)

    def test_function():
        for n, m in ((4, 6), (3, 3)):
            assert torch.allclose(kernels.attention(*qkv(n, m)), sdpa(*qkv(n, m)), atol=1e-5)

    def test_layer():
        assert torch.allclose(kernels.Layer(False)(*qkv(4, 6)), sdpa(*qkv(4, 6)), atol=1e-5)
"""


@pytest.mark.parametrize("replaces", ["kernels:attention", "kernels:Layer"])
def test_a_kernel_with_tokens_before_heads_is_scored(tmp_path, replaces):
    """(b, n, h, d), as Keras has it: seen from what it answers, of a function and of a layer. A mask is the fifth argument."""
    folder = project(tmp_path, TOKENS_FIRST, TESTS_OF_TOKENS_FIRST)

    got = statuses(folder, ("test_kernels.py",), replaces, "scale-divided-by-its-inverse")

    assert not got.wronged
    assert [fault.status for fault in got.faults] == ["noticed"]
    assert got.conventions["axes"] == "b n h d"
    if replaces == "kernels:attention":  # a layer that is made with arguments cannot be probed
        assert got.conventions["fully_masked_row"] == "nan"


def test_a_mask_of_numbers_is_the_option_bias(tmp_path):
    """Of a kernel that has no other argument for it, as torch's own: faults of a bias are among those that stand in its place."""
    tests = """
        import torch
        from kernels import attention

        def test_value():
            torch.manual_seed(0)
            q, k, v, bias = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 1, 4, 5)
            expected = torch.softmax(q @ k.mT / 8**0.5 + bias, dim=-1) @ v
            assert torch.allclose(attention(q, k, v, attn_mask=bias), expected, atol=1e-5)
    """
    kernel = "import torch\n\ndef attention(query, key, value, attn_mask=None):\n    "
    kernel += "return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask)\n"

    got = statuses(project(tmp_path, kernel, tests), ("test_kernels.py",), "kernels:attention", "bias-of-the-first-sequence")

    assert got.options == ["bias"]
    assert [fault.status for fault in got.faults] == ["noticed"]


def test_a_function_of_all_axes_is_scored_where_one_is_named(tmp_path):
    """SciPy's softmax: the call of a matrix without an axis is left to it, and the test that asks it passes."""
    kernel = """
        import numpy as np

        def softmax(x, axis=None):
            numbers = np.exp(x - x.max(axis=axis, keepdims=True))
            return numbers / numbers.sum(axis=axis, keepdims=True)
    """
    tests = """
        import numpy as np
        from kernels import softmax

        def test_rows():
            x = np.arange(6.0).reshape(2, 3)
            assert np.allclose(softmax(x, axis=-1), [softmax(row) for row in x])
            assert np.allclose(softmax(np.zeros(2)), 0.5)

        def test_all():
            assert np.allclose(softmax(np.zeros((2, 2))), 0.25)
    """

    got = statuses(
        project(tmp_path, kernel, tests), ("test_kernels.py",), "kernels:softmax", "softmax-over-axis-two", step="softmax"
    )

    assert not got.wronged
    assert got.unread == {"no axis, which is all of them": 1}
