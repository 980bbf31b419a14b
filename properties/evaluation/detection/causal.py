"""Faults of the causal mask itself."""

from properties.evaluation.detection.fault import Fault

_CAUSAL = "return key <= query"


def _causal(identifier: str, fault_class: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A wrong causal mask, offered as the step `mask`."""
    return Fault(identifier, fault_class, "mask", ("mask",), _CAUSAL, wrong, shows, ("M1",), reports)


FAULTS = (
    _causal(
        "causal-without-diagonal",
        "causal-off-by-one-or-flipped",
        "return key < query",
        "any length",
        "https://github.com/RVC-Boss/GPT-SoVITS/issues/965",
    ),
    _causal(
        "causal-sees-one-ahead",
        "causal-off-by-one-or-flipped",
        "return key <= query + 1",
        "two tokens or more",
        "https://github.com/RVC-Boss/GPT-SoVITS/issues/965",
    ),
    _causal(
        "causal-flipped",
        "causal-off-by-one-or-flipped",
        "return key >= query",
        "two tokens or more",
        "https://github.com/pytorch/examples/issues/649",
    ),
    _causal(
        "causal-rows-all-alike",
        "causal-off-by-one-or-flipped",
        "return (key <= query[:1]).expand(n, m)",
        "two tokens or more",
        "https://github.com/OpenNMT/OpenNMT-py/issues/294",
    ),
    Fault(
        "causal-flag-without-effect",
        "causal-off-by-one-or-flipped",
        "layers",
        ("decoder_layer",),
        "past = both(causal(X.shape[1], X.shape[1]), mask)",
        "past = mask",
        "two tokens or more",
        ("M3", "L3"),
        ("https://github.com/pytorch/pytorch/issues/96941", "https://github.com/huggingface/transformers/issues/48745"),
    ),
    _causal(
        "causal-in-groups-of-four",
        "causal-block-granular",
        "return key <= query // 4 * 4 + 3",
        "two tokens or more; the last row of every group is right",
        "https://github.com/pytorch/pytorch/issues/195910",
    ),
    _causal(
        "causal-last-row-short",
        "causal-block-granular",
        "return (key <= query) & ((query < n - 1) | (key < n - 1) | (n < 4))",
        "four tokens or more, the last row alone",
        "https://github.com/pytorch/executorch/pull/13332",
    ),
    _causal(
        "causal-buffer-of-16",
        "causal-buffer-size",
        "return (key <= query) | (query >= 16) | (key >= 16)",
        "more than 16 tokens: what lies outside the buffer is not masked",
        "https://github.com/tatp22/linformer-pytorch/issues/16",
        "https://github.com/karpathy/nanoGPT/issues/473",
        "https://github.com/huggingface/transformers/pull/13735",
    ),
    _causal(
        "causal-cropped-from-the-wrong-corner",
        "causal-buffer-size",
        "return key - m <= query - n",
        "n ≠ m",
        "https://github.com/facebookresearch/xformers/pull/66",
    ),
    _causal(
        "causal-of-one-word-broadcast",
        "causal-buffer-size",
        "return torch.ones(1, 1, dtype=torch.bool).expand(n, m)",
        "two tokens or more",
        "https://github.com/huggingface/transformers/issues/28215",
    ),
)
