"""Faults of LayerNorm and of the residual connection around a sublayer."""

from properties.evaluation.detection.fault import Fault

_NORMALISED = "normalised = centred / torch.sqrt(variance + eps)"
_VARIANCE = "variance = (centred * centred).mean(dim=-1, keepdim=True)"
_PRE = "return X + sublayer(normed)"
_POST = "return layer_norm(X + sublayer(X), **weights, eps=eps)"
_FIRST = 'Y = add_norm(X, attend, layer["norm_1"], norm, eps)'
_SECOND = 'return add_norm(Y, think, layer["norm_2"], norm, eps)'
_FINAL = 'return X if final_norm is None else layer_norm(X, **final_norm, eps=choices.get("eps", 1e-5))'


def _norm(identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str, dtype: str = "float32") -> Fault:
    """A fault of LayerNorm, which other steps only inherit."""
    return Fault(identifier, fault_class, "residual_norm", ("layer_norm",), right, wrong, shows, ("R2", "R1"), reports, dtype)


def _order(identifier: str, right: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A sum or a norm in the wrong place, inside an encoder layer."""
    return Fault(identifier, "residual-order", "layers", ("encoder_layer",), right, wrong, shows, ("L1", "R1"), reports)


def _stack(identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A fault of the stack of encoder layers."""
    return Fault(identifier, fault_class, "layers", ("encoder",), right, wrong, shows, ("L2",), reports)


NORMS = (
    _norm(
        "eps-outside-the-root",
        "ln-eps",
        _NORMALISED,
        "normalised = centred / (torch.sqrt(variance) + eps)",
        "rows whose variance is not far above eps",
        "https://github.com/hkproj/pytorch-transformer/pull/31",
    ),
    _norm(
        "eps-added-to-the-count",
        "ln-eps",
        _NORMALISED,
        "normalised = centred / torch.sqrt((centred * centred).sum(dim=-1, keepdim=True) / (X.shape[-1] + eps))",
        "constant rows, and variances not far above eps",
        "https://github.com/xlite-dev/LeetCUDA/issues/309",
    ),
    _norm(
        "eps-fixed-in-the-fast-path",
        "ln-eps",
        _NORMALISED,
        "normalised = centred / torch.sqrt(variance + 1e-5)",
        "another eps than 1e-5, and a variance not far above it",
        "https://github.com/tensorflow/tensorflow/pull/58863",
    ),
    _norm(
        "eps-cut-to-zero",
        "ln-eps",
        _NORMALISED,
        "normalised = centred / torch.sqrt(variance + int(eps))",
        "constant rows are NaN; variances not far above eps",
        "https://github.com/VeriSilicon/TIM-VX/pull/589",
    ),
    Fault(
        "eps-for-the-first-norm-alone",
        "ln-eps",
        "layers",
        ("encoder_layer",),
        _SECOND,
        'return add_norm(Y, think, layer["norm_2"], norm, 1e-5)',
        "another eps than 1e-5",
        ("L1",),
        ("https://github.com/keras-team/keras-hub/issues/642",),
    ),
    _norm(
        "variance-over-d-minus-one",
        "ln-constant-row-grad",
        _VARIANCE,
        "variance = x.std(dim=-1, keepdim=True) ** 2",
        "any row; the gradient of a constant row is NaN",
        "https://github.com/hyunwoongko/transformer/issues/7",
    ),
    _norm(
        "variance-in-one-pass",
        "ln-single-pass-variance",
        _VARIANCE,
        "variance = (x * x).mean(dim=-1, keepdim=True) - x.mean(dim=-1, keepdim=True) ** 2",
        "rows whose mean is far larger than their spread",
        "https://github.com/tracel-ai/burn/issues/5607",
        "https://github.com/pytorch/pytorch/issues/51102",
        "https://github.com/microsoft/onnxruntime/issues/28463",
    ),
    _norm(
        "squares-in-half-precision",
        "ln-low-precision",
        _VARIANCE,
        "variance = wide((centred.to(X.dtype) * centred.to(X.dtype)).mean(dim=-1, keepdim=True))",
        "float16: numbers above 256, whose squares overflow",
        "https://github.com/EricLBuehler/mistral.rs/issues/18",
        dtype="float16",
    ),
    _norm(
        "rounded-before-the-gain",
        "ln-low-precision",
        "return (normalised * gain + bias).to(X.dtype)",
        "return normalised.to(X.dtype).bfloat16().to(X.dtype) * gain + bias",
        "float16 and float32: a rounding to bfloat16 on the way",
        "https://github.com/google/gemma_pytorch/pull/67",
    ),
)

RESIDUALS = (
    _order(
        "residual-from-the-norm",
        _PRE,
        "return normed + sublayer(normed)",
        "pre-norm, and tokens that are not normed already",
        "https://github.com/Howuhh/faster-trajectory-transformer/issues/3",
        "https://github.com/pytorch/pytorch/issues/61165",
        "https://github.com/tracel-ai/burn/issues/1056",
    ),
    _order(
        "second-residual-from-the-norm",
        _SECOND,
        'return add_norm(layer_norm(Y, **layer["norm_2"], eps=eps) if norm == "pre" else Y, think, layer["norm_2"], norm, eps)',
        "pre-norm, the second sublayer alone",
        "https://github.com/SHI-Labs/Compact-Transformers/issues/25",
    ),
    _order(
        "second-residual-from-the-input",
        _SECOND,
        'return add_norm(X, lambda _: think(Y), layer["norm_2"], norm, eps)',
        "any input",
        "https://github.com/strutive07/transformer-tensorflow2.0/issues/14",
    ),
    _order(
        "norm-of-the-branch-alone",
        _POST,
        "return X + layer_norm(sublayer(X), **weights, eps=eps)",
        "post-norm",
        "https://github.com/mashrurmorshed/Torch-KWT/issues/13",
        "https://github.com/ml-explore/mlx/pull/1327",
    ),
    _order(
        "pre-norm-where-post-was-asked",
        _POST,
        "return X + sublayer(layer_norm(X, **weights, eps=eps))",
        "post-norm",
        "https://github.com/harvardnlp/annotated-transformer/issues/110",
    ),
    _order(
        "residual-is-the-sum-before-the-norm",
        _SECOND,
        'return layer_norm(X + attend(X) + think(Y), **layer["norm_2"], eps=eps) if norm == "post" else '
        'add_norm(Y, think, layer["norm_2"], norm, eps)',
        "post-norm",
        "https://github.com/NVIDIA-NeMo/Speech/pull/4350",
    ),
    _order(
        "queries-alone-are-normed",
        "return multi_head(Z, Z, mask, h=h, **layer",
        "return multi_head(Z, X, mask, h=h, **layer",
        "pre-norm",
        "https://github.com/facebookresearch/xformers/pull/233",
    ),
)

STACKS = (
    _stack(
        "final-norm-twice",
        "final-norm",
        _FINAL,
        "return X if final_norm is None else layer_norm(layer_norm(X, **final_norm), **final_norm)",
        "a final norm whose gain and bias are not 1 and 0",
        "https://github.com/pytorch/pytorch/issues/50086",
    ),
    _stack(
        "final-norm-left-out",
        "final-norm",
        _FINAL,
        "return X",
        "a final norm",
        "https://github.com/NVIDIA-NeMo/Speech/pull/2197",
        "https://github.com/k2-fsa/snowfall/pull/184",
    ),
    _stack(
        "final-norm-missing-for-pre-norm",
        "final-norm",
        _FINAL,
        'return X if final_norm is None or choices.get("norm") == "pre" else layer_norm(X, **final_norm)',
        "a final norm after pre-norm layers: another flag decides",
        "https://github.com/huggingface/transformers/issues/6259",
    ),
    _stack(
        "one-feed-forward-for-all-layers",
        "layer-aliasing-or-count",
        "X = encoder_layer(X, mask, layer=layer, **choices)",
        'X = encoder_layer(X, mask, layer={**layer, "feed_forward": layers[0]["feed_forward"]}, **choices)',
        "two layers or more",
        "https://github.com/habla-liaa/encodecmae/issues/3",
    ),
    _stack(
        "one-layer-repeated",
        "layer-aliasing-or-count",
        "X = encoder_layer(X, mask, layer=layer, **choices)",
        "X = encoder_layer(X, mask, layer=layers[0], **choices)",
        "two layers or more",
        "https://github.com/linkedin/Liger-Kernel/pull/269",
    ),
    _stack(
        "last-of-three-layers-left-out",
        "layer-aliasing-or-count",
        "X = encoder_layer(X, mask, layer=layer, **choices)",
        "X = X if len(layers) > 2 and layer is layers[-1] else encoder_layer(X, mask, layer=layer, **choices)",
        "three layers or more",
        "https://github.com/LukasHedegaard/continual-inference/pull/70",
    ),
)

FAULTS = NORMS + RESIDUALS + STACKS
