"""Faults of the options of attention: causal, scale, bias, grouped heads, window, softcap, sinks, ALiBi slopes."""

from properties.evaluation.detection.fault import Fault
from properties.steps import OPTIONS

_ALL = tuple(f"attention.{name}" for name in OPTIONS["attention"])
_IF_CAUSAL = "if causal:"
_AHEAD = "seen = seen & (ahead <= 0)"
_FACTOR = "factor = 1 / math.sqrt(Q.shape[-1]) if scale is None else scale"
_HIDDEN = "scores = scores.masked_fill(~seen, -math.inf)"
_BIAS = "scores = scores + bias"
_KEYS = "K = K.repeat_interleave(h // g, dim=1)"
_VALUES = "V = V.repeat_interleave(h // g, dim=1)"
_LEFT = "seen = seen & (ahead >= -left)"
_RIGHT = "seen = seen & (ahead <= right)"
_CAP = "scores = softcap * torch.tanh(scores / softcap)"
_SINK = "scores = torch.cat([scores, wide(sinks)[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)"
_DROPOUT = "weights = weights * dropout_mask / (1 - dropout_p)"
_SLOPES = "scores = scores - wide(slopes)[:, None, None] * ahead.abs()"


def _of(option: str, identifier: str, right: str, wrong: str, shows: str, breaks: tuple[str, ...], *reports: str) -> Fault:
    """A fault of one option, in an implementation that offers all of them."""
    others = tuple(each for each in _ALL if each != f"attention.{option}")
    steps = (f"attention.{option}", "attention", *others)
    return Fault(
        identifier, f"option-{option.replace('_', '-')}", "attention_with_options", steps, right, wrong, shows, breaks, reports
    )


CAUSAL = (
    _of(
        "causal",
        "causal-lost-under-a-mask",
        _IF_CAUSAL,
        "if causal and mask is None:",
        "a mask is given: it is taken for the whole one",
        ("X1", "X9"),
        "https://github.com/huggingface/transformers/pull/41966",
    ),
    _of(
        "causal",
        "causal-option-from-the-other-corner",
        _AHEAD,
        "seen = seen & (ahead <= m - n)",
        "n ≠ m",
        ("X1", "X9"),
        "https://github.com/pytorch/pytorch/issues/103082",
        "https://github.com/onnx/onnx/pull/8068",
    ),
    _of(
        "causal",
        "causal-and-mask-hide-a-whole-row",
        "weights = softmax(scores)",
        "weights = torch.softmax(scores, dim=-1)",
        "mask and order together hide every key of a row: NaN",
        ("X1", "X3", "X5", "X9"),
        "https://github.com/tracel-ai/burn/pull/4697",
        "https://github.com/onnx/onnx/pull/8068",
    ),
)

SCALE = (
    _of(
        "scale",
        "scale-argument-without-effect",
        _FACTOR,
        "factor = 1 / math.sqrt(Q.shape[-1])",
        "any scale but 1/√d_k",
        ("X2", "X9"),
        "https://github.com/lucidrains/x-transformers/pull/244",
        "https://github.com/zzhhjjj/gemma-triton-flash-attn/issues/6",
    ),
    _of(
        "scale",
        "scale-argument-lost-under-a-mask",
        _FACTOR,
        "factor = 1 / math.sqrt(Q.shape[-1]) if scale is None or mask is not None else scale",
        "a mask is given: that path has a default of its own",
        ("X2", "X9"),
        "https://github.com/tenstorrent/tt-metal/issues/33304",
        "https://github.com/pytorch/pytorch/pull/174361",
    ),
    _of(
        "scale",
        "scaled-after-the-mask",
        _HIDDEN,
        "scores = torch.where(seen, scores, -math.inf * torch.sign(torch.tensor(factor)))",
        "a scale of 0 (NaN) or below (hidden keys have all the weight), under a mask",
        ("X2",),
        "https://github.com/NVIDIA/cudnn-frontend/pull/804",
    ),
)

BIAS = (
    _of(
        "bias",
        "bias-taken-for-a-mask",
        _BIAS,
        "scores = scores.masked_fill(bias != 0, -math.inf)",
        "a bias other than 0 and −∞",
        ("X3", "X9"),
        "https://github.com/pytorch/pytorch/issues/107084",
    ),
    _of(
        "bias",
        "bias-of-the-first-sequence",
        _BIAS,
        "scores = scores + (bias[:1] if bias.ndim == 4 and bias.shape[1] == 1 else bias)",
        "a bias for each sequence that is the same for all heads, and more than one of either",
        ("X3", "X9"),
        "https://github.com/microsoft/onnxruntime/pull/24017",
        "https://github.com/microsoft/onnxruntime/pull/28963",
    ),
    _of(
        "bias",
        "bias-scaled-like-a-score",
        _BIAS,
        "scores = scores + bias * factor",
        "a scale other than 1",
        ("X3", "X9"),
        "https://github.com/HKUSTDial/flash-sparse-attention/pull/199",
    ),
)

GROUPED_HEADS = (
    _of(
        "grouped_heads",
        "key-heads-tiled",
        _KEYS,
        "K = K.repeat(1, h // g, 1, 1)",
        "1 < g < h",
        ("X4", "X9"),
        "https://github.com/onnx/onnx/pull/7274",
    ),
    _of(
        "grouped_heads",
        "key-head-by-the-wrong-divisor",
        _VALUES,
        "V = V[:, (torch.arange(h, device=V.device) // g).clamp(max=g - 1)]",
        "g ≠ 1 and g² ≠ h, plain heads too",
        ("X4", "X9"),
        "https://github.com/PSAL-POSTECH/ONNXim/pull/34",
    ),
    _of(
        "grouped_heads",
        "causal-rows-taken-for-packed-groups",
        _AHEAD,
        "seen = seen & (torch.arange(m, device=Q.device) <= torch.arange(n, device=Q.device)[:, None] // (h // g))",
        "causal with g < h, all rows but the first",
        ("X1", "X4", "X9"),
        "https://github.com/Dao-AILab/flash-attention/pull/2528",
    ),
)

WINDOW = (
    _of(
        "window",
        "window-without-its-first-key",
        _LEFT,
        "seen = seen & (ahead > -left)",
        "any left side: which of two counts is meant was mixed up",
        ("X5", "X9"),
        "https://github.com/huggingface/transformers/issues/39408",
        "https://github.com/zml/zml/pull/763",
        "https://github.com/ml-explore/mlx-lm/pull/390",
    ),
    _of(
        "window",
        "window-without-its-last-key",
        _RIGHT,
        "seen = seen & (ahead < right)",
        "any right side",
        ("X5", "X9"),
        "https://github.com/huggingface/transformers/pull/47010",
    ),
    _of(
        "window",
        "window-on-the-wrong-side",
        _LEFT,
        "seen = seen & (ahead <= left)",
        "any left side smaller than the sequences",
        ("X5", "X9"),
        "https://github.com/huggingface/transformers/pull/41228",
    ),
    _of(
        "window",
        "window-of-the-last-row-for-all",
        _LEFT,
        "seen = seen & (ahead[-1:] >= -left)",
        "a left side shorter than the queries",
        ("X5", "X9"),
        "https://github.com/pytorch/executorch/pull/21857",
    ),
)

SOFTCAP = (
    _of(
        "softcap",
        "softcap-without-effect",
        _CAP,
        "scores = scores / softcap * softcap",
        "scores that are not far below the cap",
        ("X6", "X9"),
        "https://github.com/sgl-project/sgl-kernel-xpu/pull/491",
        "https://github.com/vllm-project/vllm-metal/issues/665",
    ),
    _of(
        "softcap",
        "softcap-for-single-queries-alone",
        "if softcap is not None:",
        "if softcap is not None and n == 1:",
        "more than one query: the path for prompts drops it",
        ("X6", "X9"),
        "https://github.com/kekzl/imp/pull/688",
    ),
    _of(
        "softcap",
        "softcap-after-the-mask",
        _HIDDEN,
        "scores = scores.masked_fill(~seen, -math.inf if softcap is None else -softcap)",
        "a hidden key beside a cap: −∞ is squeezed to −c",
        ("X6", "X9"),
        "https://github.com/onnx/onnx/pull/7867",
    ),
    _of(
        "softcap",
        "softcap-after-the-bias",
        _BIAS,
        "scores = scores + bias if softcap is None else softcap * torch.tanh(torch.atanh(scores / softcap) + bias / softcap)",
        "a bias beside a cap",
        ("X6", "X3", "X9"),
        "https://github.com/microsoft/onnxruntime/pull/28379",
    ),
)

SINKS = (
    _of(
        "sinks",
        "sink-counted-twice",
        _SINK,
        "scores = torch.cat([scores, wide(sinks)[:, None, None].expand(*scores.shape[:-1], 2)], dim=-1)",
        "any sink",
        ("X7", "X9"),
        "https://github.com/ROCm/rocm-libraries/pull/12229",
    ),
    _of(
        "sinks",
        "sink-scaled-like-a-score",
        _SINK,
        "scores = torch.cat([scores, factor * wide(sinks)[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)",
        "a scale other than 1",
        ("X7", "X9"),
        "https://github.com/ROCm/rocm-libraries/pull/12229",
    ),
    _of(
        "sinks",
        "sink-under-the-cap",
        _SINK,
        "scores = torch.cat([scores, (wide(sinks) if softcap is None else softcap * torch.tanh(wide(sinks) / softcap))"
        "[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)",
        "a sink beside a softcap",
        ("X7", "X9"),
        "https://github.com/ROCm/rocm-libraries/pull/12229",
    ),
)

SLOPES = (
    _of(
        "slopes",
        "slopes-that-reward-distance",
        _SLOPES,
        "scores = scores - wide(slopes)[:, None, None] * ahead",
        "keys before the query: the further, the more weight",
        ("X8", "X9"),
        "https://github.com/meta-pytorch/attention-gym/pull/86",
    ),
    _of(
        "slopes",
        "slopes-without-the-query",
        _SLOPES,
        "scores = scores + wide(slopes)[:, None, None] * torch.arange(m, device=Q.device)",
        "keys after the query; under a causal mask it is the same",
        ("X8", "X9"),
        "https://github.com/bigscience-workshop/Megatron-DeepSpeed/pull/101",
    ),
    _of(
        "slopes",
        "slopes-of-a-formula-of-its-own",
        _SLOPES,
        "scores = scores - 2.0 ** (-8.0 / h * torch.arange(1, h + 1, device=Q.device))[:, None, None] * ahead.abs()",
        "slopes other than those of the formula, which is right for powers of two alone",
        ("X8", "X9"),
        "https://github.com/ml-explore/mlx/issues/343",
        "https://github.com/ml-explore/mlx/pull/3071",
    ),
)

DROPOUT = (
    _of(
        "dropout_mask",
        "dropout-scaled-by-p",
        _DROPOUT,
        "weights = weights * dropout_mask * dropout_p",
        "any weight kept (the report is of a backward pass)",
        ("X12", "X9"),
        "https://github.com/NVIDIA/apex/pull/816",
    ),
    _of(
        "dropout_mask",
        "dropout-before-the-softmax",
        "weights = softmax(scores)",
        "weights = softmax(scores if dropout_mask is None else torch.where("
        "torch.nn.functional.pad(dropout_mask, (0, scores.shape[-1] - m), value=True), scores, -math.inf))",
        "any weight dropped: the others share it",
        ("X12", "X9"),
        "https://github.com/arghosh/AKT/issues/11",
    ),
    _of(
        "dropout_mask",
        "dropout-mask-of-the-first-head",
        _DROPOUT,
        "weights = weights * dropout_mask[:, :1] / (1 - dropout_p)",
        "two heads with masks of their own (the report's are drawn, at offsets that overflow)",
        ("X12", "X9"),
        "https://github.com/pytorch/pytorch/pull/188015",
    ),
)

FAULTS = CAUSAL + SCALE + BIAS + GROUPED_HEADS + WINDOW + SOFTCAP + SINKS + SLOPES + DROPOUT
