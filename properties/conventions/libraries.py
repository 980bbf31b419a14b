"""The conventions of well-known libraries, each with where it is written: `--like torch` declares all of one at once.

Sources are pages of documentation or, by owner/name, repositories on GitHub. What a library does not say, or does not have, is
left open. torch, jax and onnx are asked by the probes themselves where they are
installed (`tests/properties/test_libraries.py`).
"""

from typing import NamedTuple


class Row(NamedTuple):
    """A choice of a library's, and where it is written."""

    choice: str
    source: str


_SDPA = "docs.pytorch.org, torch.nn.functional.scaled_dot_product_attention"
_MHA = "docs.pytorch.org, torch.nn.MultiheadAttention"
_JAX = "docs.jax.dev, jax.nn.dot_product_attention"
_ONNX = "onnx.ai/onnx/operators, Attention"
_FLASH = "Dao-AILab/flash-attention, flash_attn_interface.py, flash_attn_func"
_MLX = "ml-explore.github.io/mlx, mlx.core.fast.scaled_dot_product_attention"
_TENSORRT = "docs.nvidia.com/deeplearning/tensorrt, IAttention"
_IEEE = "0·NaN is NaN (IEEE 754, 6.2), and the values are multiplied by weights of 0"

LIBRARIES: dict[str, dict[str, Row]] = {
    "torch": {
        "mask_polarity": Row("true_attends", f"{_SDPA}: a value of True indicates that the element should take part in attention"),
        "causal_alignment": Row("top_left", f"{_SDPA}: is_causal is the upper left causal bias"),
        "fully_masked_row": Row("zeros", "pytorch/pytorch, aten/src/ATen/native/transformers/attention.cpp, _safe_softmax"),
        "fully_masked_softmax": Row("nan", "docs.pytorch.org, torch.nn.functional.softmax: exp(x) / Σ exp(x), which is 0/0"),
        "eps": Row("inside", "docs.pytorch.org, torch.nn.LayerNorm: the root of Var[x] + ε"),
        "non_finite_behind_mask": Row("leaks", _IEEE),
        "non_finite_masked_key": Row("leaks", f"{_SDPA}: attn_bias is added to the scores, and NaN plus −∞ is NaN"),
        "out_of_range_token": Row("refused", "docs.pytorch.org, torch.nn.functional.embedding: IndexError on the CPU"),
        "log_sum_exp_base": Row("natural", "docs.pytorch.org, torch.logsumexp: log Σ exp(x)"),
        "fully_masked_log_sum_exp": Row("minus_infinity", "docs.pytorch.org, torch.logsumexp: log Σ exp(x), which is log 0"),
    },
    "torch.nn": {
        "mask_polarity": Row("true_masks", f"{_MHA}: a True value indicates that the position is not allowed to attend"),
        "eps": Row("inside", "docs.pytorch.org, torch.nn.LayerNorm: the root of Var[x] + ε"),
        "non_finite_behind_mask": Row("leaks", _IEEE),
        "out_of_range_token": Row("refused", "docs.pytorch.org, torch.nn.functional.embedding: IndexError on the CPU"),
    },
    "onnx": {
        "mask_polarity": Row("true_attends", f"{_ONNX}: True indicates that the element should take part in attention"),
        "causal_alignment": Row("top_left", f"{_ONNX}: without a cache the offset is 0, which is the lower-triangular mask"),
        "fully_masked_row": Row("zeros", f"{_ONNX}: a fully-masked query row produces a zero output row, not NaN"),
        "fully_masked_softmax": Row("nan", "onnx.ai/onnx/operators, Softmax: Exp(input) / ReduceSum(Exp(input)), which is 0/0"),
        "eps": Row("inside", "onnx.ai/onnx/operators, LayerNormalization: VarEps = Add(Var, epsilon)"),
        "non_finite_behind_mask": Row("leaks", _IEEE),
        "out_of_range_token": Row("wraps", "onnx.ai/onnx/operators, Gather: indices within [−s, s−1], an error otherwise"),
    },
    "jax": {
        "mask_polarity": Row("true_attends", f"{_JAX}: True indicates the element should take part in attention"),
        "causal_alignment": Row("top_left", "jax-ml/jax, jax/_src/nn/functions.py, _get_causal_mask: tril(ones((T, S)))"),
        "fully_masked_row": Row("mean", "jax-ml/jax, jax/_src/nn/functions.py, _get_large_negative: finite, so weights are equal"),
        "fully_masked_softmax": Row("nan", "docs.jax.dev, jax.nn.softmax: exp(x) / Σ exp(x), which is 0/0"),
        "non_finite_behind_mask": Row("leaks", _IEEE),
        "subnormals": Row("flushed", "seen: jax 0.10.2 on the CPU, tests/properties/test_libraries.py"),
        "out_of_range_token": Row(
            "computed", "docs.jax.dev, Sharp bits, Out-of-Bounds Indexing: the index is clamped, or NaN filled in"
        ),
    },
    "flash-attn": {
        "causal_alignment": Row("bottom_right", f"{_FLASH}: the causal mask is aligned to the bottom right corner (since 2.1)"),
        "fully_masked_row": Row("zeros", f"{_FLASH}: if the row of the mask is all zero, the output will be zero"),
        "log_sum_exp_base": Row("natural", f"{_FLASH}: softmax_lse is the log of the softmax normalization factor"),
        "sequence_without_keys": Row("zeros", f"{_FLASH}: if the row of the mask is all zero, the output will be zero"),
        "subnormals": Row("flushed", "Dao-AILab/flash-attention, setup.py: --use_fast_math, which implies -ftz=true"),
    },
    "mlx": {
        "causal_alignment": Row("bottom_right", f"{_MLX}: lower-right alignment, where the last query aligns with the last key"),
        "subnormals": Row("flushed", "Metal Shading Language Specification, 8.1: denormalized numbers may be flushed to zero"),
        "out_of_range_token": Row("computed", "ml-explore.github.io/mlx, Indexing Arrays: no bounds checking"),
    },
    "tensorrt": {
        "mask_polarity": Row("true_attends", f"{_TENSORRT}: True indicates that the corresponding position is allowed to attend"),
        "causal_alignment": Row("top_left", f"{_TENSORRT}: kUPPER_LEFT where causal is true"),
    },
    "transformers": {
        "mask_polarity": Row("integer", "huggingface.co/docs/transformers, glossary, attention mask: 1 is attended to, 0 is not"),
        "layout": Row("halves", "huggingface/transformers, modeling_marian.py: cos features are in the 2nd half of the vector"),
        "eps": Row("inside", "docs.pytorch.org, torch.nn.LayerNorm: the root of Var[x] + ε"),
    },
}
"""library → convention → its choice there."""


def conventions_of(name: str) -> dict[str, str]:
    """The conventions of a library. Raises ValueError for one that is not in the table."""
    if name not in LIBRARIES:
        raise ValueError(f"like: expected one of {', '.join(LIBRARIES)}, got {name!r}")
    return {convention: row.choice for convention, row in LIBRARIES[name].items()}
