"""Faults of the heads: how they are cut, joined, numbered and fed."""

from properties.evaluation.detection.fault import Fault

_SPLIT = "return X.reshape(b, n, h, d_model // h).transpose(1, 2)"
_CONCAT = "return heads.transpose(1, 2).reshape(b, n, h * d_k)"
_Q = "Q = split_heads(linear(X, W_Q, b_Q), h)"
_K = "K = split_heads(linear(M, W_K, b_K), h)"
_CONTEXT = "context = concat_heads(attention(Q, K, V, mask))"


def _fault(
    identifier: str,
    fault_class: str,
    right: str,
    wrong: str,
    shows: str,
    *reports: str,
    steps: tuple[str, ...] = ("multi_head",),
    base: str = "multi_head",
    breaks: tuple[str, ...] = ("H1", "H2", "H3", "A1", "L1", "C1", "T3"),
) -> Fault:
    """A fault in the heads, which the step `multi_head` shows if nothing smaller does."""
    return Fault(identifier, fault_class, base, steps, right, wrong, shows, breaks, reports)


FAULTS = (
    _fault(
        "heads-cut-without-turning",
        "head-split-merge-layout",
        _SPLIT,
        "return X.reshape(b, h, n, d_model // h)",
        "h > 1 and more than one token",
        "https://github.com/reczoo/FuxiCTR/issues/30",
        "https://github.com/hyunwoongko/transformer/issues/15",
        steps=("split_heads", "concat_heads"),
    ),
    _fault(
        "heads-joined-without-turning",
        "head-split-merge-layout",
        _CONCAT,
        "return heads.reshape(b, n, h * d_k)",
        "h > 1 and more than one token",
        "https://github.com/jsbaan/transformer-from-scratch/pull/6",
        "https://github.com/meta-pytorch/opacus/pull/825",
    ),
    _fault(
        "heads-joined-across-sentences",
        "head-split-merge-layout",
        _CONCAT,
        "return heads.reshape(h, b, n, d_k).permute(1, 2, 0, 3).reshape(b, n, h * d_k)",
        "more than one sequence and h > 1",
        "https://github.com/gazelle93/Transformer-Various-Positional-Encoding/issues/1",
    ),
    _fault(
        "queries-cut-otherwise-than-keys",
        "head-split-merge-layout",
        _Q,
        "Q = linear(X, W_Q, b_Q).reshape(*X.shape[:2], -1, h).permute(0, 3, 1, 2)",
        "h > 1 and d_k > 1: features dealt out in turn",
        "https://github.com/649453932/Chinese-Text-Classification-Pytorch/issues/10",
    ),
    _fault(
        "heads-projected-after-the-cut",
        "head-split-merge-layout",
        _Q,
        "Q = split_heads(X, h) @ W_Q[: W_Q.shape[1] // h, : W_Q.shape[1] // h] + (0 if b_Q is None else b_Q.reshape(h, 1, -1))",
        "h > 1: every head has the first one's small matrix",
        "https://github.com/MarcoMeter/episodic-transformer-memory-ppo/pull/22",
    ),
    _fault(
        "scale-from-the-model",
        "scale-from-wrong-dim",
        "scale = 1 / math.sqrt(Q.shape[-1])",
        "scale = 1 / math.sqrt(Q.shape[1] * Q.shape[-1])",
        "h > 1: √d_model in place of √d_k",
        "https://github.com/omihub777/ViT-CIFAR/pull/11",
        "https://github.com/lucidrains/vit-pytorch/issues/65",
        "https://github.com/chelsea0x3b/dfdx/issues/171",
    ),
    _fault(
        "every-head-reads-key-head-0",
        "head-index-mapping",
        _CONTEXT,
        "context = concat_heads(attention(Q, K[:, :1].expand_as(K), V, mask))",
        "h > 1",
        "https://github.com/PSAL-POSTECH/ONNXim/pull/34",
    ),
    _fault(
        "fused-projections-interleaved",
        "head-index-mapping",
        "V = split_heads(linear(M, W_V, b_V), h)",
        "V = linear(M, W_V, b_V).reshape(*M.shape[:2], -1, h).permute(0, 3, 1, 2)",
        "h > 1 and d_k > 1",
        "https://github.com/lablup/mlxcel/pull/928",
        "https://github.com/ndif-team/nnsight/pull/719",
    ),
    _fault(
        "attention-across-heads",
        "axis-order-batch-seq-head",
        _CONTEXT,
        "context = concat_heads(attention(Q.transpose(1, 2), K.transpose(1, 2), V.transpose(1, 2)).transpose(1, 2)"
        " if X.shape == M.shape and mask is None else attention(Q, K, V, mask))",
        "no mask, as many keys as queries: each token mixes its own heads",
        "https://github.com/ml-explore/mlx/issues/3585",
        "https://github.com/jax-ml/jax/issues/35916",
    ),
    _fault(
        "sentences-and-words-exchanged",
        "axis-order-batch-seq-head",
        "return multi_head(Z, Z, mask, h=h, **layer",
        "return multi_head(Z.transpose(0, 1), Z.transpose(0, 1), None, h=h, **layer",
        "any input: attention runs over the batch",
        "https://github.com/IBM/TabFormer/pull/14",
        "https://github.com/DaoyuanLi2816/Molecule-Generator/pull/22",
        steps=("encoder_layer",),
        base="layers",
    ),
    _fault(
        "one-blind-head-is-nan",
        "fully-masked-row",
        "largest = s.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(s.dtype).min)",
        "largest = s.amax(dim=-1, keepdim=True)",
        "a mask that leaves one head nothing to look at",
        "https://github.com/pytorch/pytorch/issues/160064",
        breaks=("M2",),
    ),
)
