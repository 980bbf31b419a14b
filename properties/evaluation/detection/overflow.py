"""Faults of range: numbers inside a step overflow, although its arguments, its scores and its result fit into the dtype."""

from properties.evaluation.detection.fault import Fault

_SCORES = "scores = wide(Q) @ wide(K).mT * scale"
_SCORES_STORED = "scores = wide((wide(Q) @ wide(K).mT).to(Q.dtype)) * scale"
_UNSCALED = (
    "https://github.com/ultralytics/ultralytics/pull/24990",
    "https://github.com/tinygrad/tinygrad/pull/4985",
    "https://github.com/Dao-AILab/flash-attention/issues/49",
)


def _fault(
    identifier: str, base: str, step: str, right: str, wrong: str, shows: str, claim: str, *reports: str, dtype: str = "float16"
) -> Fault:
    return Fault(identifier, "overflow-inside", base, (step,), right, wrong, shows, (claim,), reports, dtype)


FAULTS = (
    _fault(
        "products-stored-before-they-are-scaled",
        "attention",
        "attention",
        _SCORES,
        _SCORES_STORED,
        "float16: a product of a query and a key above 65504, whose score is not",
        "A2",
        *_UNSCALED,
    ),
    _fault(
        "products-of-a-layer-stored-before-they-are-scaled",
        "layers",
        "encoder_layer",
        _SCORES,
        _SCORES_STORED,
        "float16: the same inside a layer",
        "L1",
        *_UNSCALED,
    ),
    _fault(
        "heads-added-up-in-half-precision",
        "multi_head",
        "multi_head",
        "return linear(context, W_O, b_O)",
        "return linear(context[..., : len(W_O) // 2], W_O[: len(W_O) // 2]) "
        "+ linear(context[..., len(W_O) // 2 :], W_O[len(W_O) // 2 :], b_O)",
        "float16: two parts of a sum that overflow, and cancel",
        "H3",
        "https://github.com/microsoft/onnxruntime/pull/29599",
        "https://github.com/ROCm/AMDMIGraphX/issues/850",
    ),
    _fault(
        "residual-sum-with-the-range-of-float16",
        "residual_norm",
        "residual_norm",
        "return layer_norm(X + Y, gain=gain, bias=bias, eps=eps)",
        "return layer_norm((X.half() + Y.half()).to(X.dtype), gain=gain, bias=bias, eps=eps)",
        "bfloat16: numbers above 65504",
        "R1",
        "https://github.com/Blaizzy/mlx-vlm/pull/293",
        dtype="bfloat16",
    ),
    _fault(
        "variance-stored-in-half-precision",
        "residual_norm",
        "layer_norm",
        "normalised = centred / torch.sqrt(variance + eps)",
        "normalised = centred / torch.sqrt(torch.where(variance > torch.finfo(X.dtype).max, torch.inf, variance) + eps)",
        "float16: a variance above 65504",
        "R2",
        "https://github.com/microsoft/onnxruntime/issues/17692",
        "https://github.com/microsoft/onnxruntime/issues/29034",
    ),
)
