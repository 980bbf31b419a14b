"""Faults of masks that usual calls do not show: NaN in masked keys, very low scores, rare shapes, large sizes; and of layouts."""

from properties.evaluation.detection.fault import Fault

_HIDE = "scores = scores.masked_fill(~mask, -math.inf)"
_SCORES = "scores = wide(Q) @ wide(K).mT * scale"
_PAST = "past = both(causal(X.shape[1], X.shape[1]), mask)"
_CROSS = "return multi_head(Z, M, memory_mask, h=h, **layer"
_NO_KEY = ".masked_fill(~mask.any(dim=-1, keepdim=True), -math.inf)"  # fully masked rows stay what they are


def _attention(
    identifier: str, fault_class: str, right: str, wrong: str, shows: str, breaks: tuple[str, ...], *reports: str
) -> Fault:
    return Fault(identifier, fault_class, "attention", ("attention",), right, wrong, shows, breaks, reports)


def _layer(identifier: str, fault_class: str, step: str, right: str, wrong: str, shows: str, *reports: str) -> Fault:
    return Fault(identifier, fault_class, "layers", (step,), right, wrong, shows, ("L1", "L3", "M3", "C2"), reports)


FAULTS = (
    _attention(
        "minus-infinity-added-to-nan",
        "additive-mask-overflow",
        _HIDE,
        "scores = scores + torch.zeros_like(scores).masked_fill(~mask, -math.inf)",
        "NaN or +∞ in a masked key: NaN plus −∞ is NaN, where masked keys are declared to be blocked",
        ("M3",),
        "https://github.com/huggingface/transformers/pull/28533",
        "https://github.com/pytorch/pytorch/issues/110213",
    ),
    _attention(
        "mask-of-minus-a-billion",
        "finite-mask-value-leaks",
        _HIDE,
        f"scores = scores.masked_fill(~mask, -1e9){_NO_KEY}",
        "all attended scores of a row below −10⁹",
        ("M2",),
        "https://github.com/huggingface/transformers/pull/17306",
        "https://github.com/huggingface/transformers/issues/9860",
    ),
    _layer(
        "mask-of-half-the-smallest-number",
        "finite-mask-value-leaks",
        "encoder_layer",
        _HIDE,
        f"scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min / 2){_NO_KEY}",
        "all attended scores of a row below half of the smallest number",
        "https://github.com/huggingface/transformers/issues/9860",
    ),
    _attention(
        "mask-of-the-first-head-where-scores-are-many",
        "mask-broadcast-coincidence",
        _HIDE,
        "scores = scores.masked_fill(~(mask[:, :1] if mask.ndim == 4 and scores.numel() > 2**14 else mask), -math.inf)",
        "masks that differ between heads, and more than 16,384 scores",
        ("M2",),
        "https://github.com/meta-pytorch/attention-gym/issues/98",
    ),
    _attention(
        "mask-of-queries-taken-for-keys",
        "mask-broadcast-coincidence",
        _HIDE,
        "scores = scores.masked_fill(~(mask.mT if mask.ndim > 1 and mask.shape[-2:] == (K.shape[-2], 1) else mask), -math.inf)",
        "a mask (…, n, 1) of as many queries as keys",
        ("M2",),
        "https://github.com/idiap/fast-transformers/issues/101",
        "https://github.com/lucidrains/vit-pytorch/issues/71",
    ),
    _attention(
        "mask-of-one-axis-taken-for-queries",
        "mask-broadcast-coincidence",
        _HIDE,
        "scores = scores.masked_fill(~(mask[:, None] if mask.ndim == 1 and len(mask) == Q.shape[-2] else mask), -math.inf)",
        "a mask (m) of as many keys as queries",
        ("M2",),
        "https://github.com/jax-ml/jax/issues/28974",
    ),
    _attention(
        "keys-walked-with-the-strides-of-queries",
        "non-contiguous-views",
        _SCORES,
        "scores = wide(Q) @ wide(K.as_strided(K.shape, Q.stride()) if sorted(Q.stride()) == sorted(K.stride()) else K).mT * scale",
        "Q and K of the same shape, of which one is transposed in memory",
        ("A6",),
        "https://github.com/pytorch/pytorch/issues/112577",
    ),
    _attention(
        "mask-read-as-if-contiguous",
        "non-contiguous-views",
        _HIDE,
        "scores = scores.masked_fill(~(mask if mask.untyped_storage().nbytes() < mask.numel() "
        "else mask.as_strided(mask.shape, torch.empty(mask.shape).stride())), -math.inf)",
        "a mask that is a view: transposed, strided or at an offset",
        ("A6",),
        "https://github.com/pytorch/pytorch/issues/112577",
        "https://github.com/facebookresearch/xformers/issues/1122",
    ),
    _layer(
        "mask-dropped-beside-the-causal-rule",
        "padding-mask-not-applied",
        "decoder_layer",
        _PAST,
        "past = both(causal(X.shape[1], X.shape[1]), mask if X.shape[1] <= 16 else None)",
        "a mask besides the causal rule, and more than 16 tokens",
        "https://github.com/lucidrains/x-transformers/issues/187",
        "https://github.com/pytorch/pytorch/issues/96941",
    ),
    _layer(
        "cross-attention-causal-over-a-long-memory",
        "cross-causal",
        "decoder_layer",
        _CROSS,
        "return multi_head(Z, M, both(causal(Z.shape[1], M.shape[1]), memory_mask) if 16 < 2 * Z.shape[1] < M.shape[1] "
        "else memory_mask, h=h, **layer",
        "a memory more than twice as long as a target of more than 8 tokens",
        "https://github.com/zhouhaoyi/Informer2020/issues/38",
    ),
)
