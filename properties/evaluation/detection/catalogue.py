"""The catalogue: every fault, the classes they belong to, and what is left out and why."""

from properties.evaluation.detection import (
    attention,
    attention_cache,
    attention_options,
    backward,
    cache,
    cached_attention,
    causal,
    embedding,
    feed_forward,
    gradients,
    mask,
    model,
    multi_head,
    multi_head_options,
    overflow,
    packed_attention,
    rare_masks,
    residual_norm,
    softmax,
)
from properties.evaluation.detection.cheats import CHEATS
from properties.evaluation.detection.fault import Fault

CLASSES: dict[str, tuple[str, ...]] = {
    "softmax": (
        "fully-masked-row",
        "online-softmax-masked-block",
        "key-tail-block",
        "softmax-axis-right-for-one-rank",
        "softmax-denominator-offset",
        "softmax-no-or-wrong-max",
    ),
    "mask": (
        "causal-block-granular",
        "causal-buffer-size",
        "causal-constant-offset",
        "causal-off-by-one-or-flipped",
        "finite-mask-value-leaks",
        "mask-broadcast-coincidence",
        "mask-dtype-bool-vs-float",
        "mask-then-squash",
        "packing-isolation",
        "padding-mask-not-applied",
        "query-row-padding-mask",
        "window-mask-misaligned",
    ),
    "scaled dot product": ("scale-from-padded-head-dim", "scale-from-wrong-dim", "scale-lost-in-path-or-arg"),
    "options of attention": (
        "option-bias",
        "option-causal",
        "option-dropout-mask",
        "option-grouped-heads",
        "option-scale",
        "option-sinks",
        "option-slopes",
        "option-softcap",
        "option-window",
    ),
    "multi-head": ("dv-or-din-differs", "head-index-mapping", "head-split-merge-layout", "returned-weights"),
    "cross-attention": ("cross-cache-state", "cross-causal", "cross-length", "cross-mask-source"),
    "positional encoding": (
        "left-pad-positions",
        "pe-formula",
        "pe-layout-concat",
        "pe-table-limit",
        "positions-coupled-to-pad-id",
    ),
    "embedding": ("embedding-scale",),
    "residual and norm": ("final-norm", "ln-eps", "residual-order"),
    "feed-forward": ("ffn-arg-ignored", "gelu-variant", "layer-aliasing-or-count"),
    "output projection": ("double-softmax", "loss-padding", "loss-shift", "tie-state"),
    "decoding and cache": (
        "cache-aliasing",
        "cache-not-used-or-misfed",
        "cache-rollback",
        "cache-row-reorder",
        "cache-used-when-it-must-not",
        "causal-missing-in-prefill-with-cache",
        "causal-with-cache-offset",
        "last-token-index",
        "paged-cache-boundary",
        "position-offset-in-cached-decode",
        "ring-cache-wrap",
        "static-cache-unwritten-slots",
    ),
    "gradient": (
        "attention-gradient-formula",
        "dropout-mask-differs-in-backward",
        "embedding-gradient",
        "feed-forward-gradient-formula",
        "fully-masked-row-grad",
        "gradient-given-in-any-memory",
        "gradient-of-another-step",
        "gradient-of-many-rows",
        "gradient-of-some-inputs",
        "ln-constant-row-grad",
        "mask-differs-in-backward",
        "norm-gradient-formula",
        "softmax-gradient-formula",
        "tied-gradient",
    ),
    "numerics": (
        "additive-mask-overflow",
        "fp64-silently-fp32",
        "ln-low-precision",
        "ln-single-pass-variance",
        "matmul-precision",
        "overflow-inside",
        "pe-low-precision",
    ),
    "layout": ("axis-order-batch-seq-head", "non-contiguous-views", "size-1-axis-squeezed"),
    "beyond the article": ("corrupt-indices", "log-sum-exp-base"),
}
"""The classes of public bug reports, by the component they happen in."""

OUT_OF_SCOPE: dict[str, str] = {
    "loss-padding": "a mean of the loss over padding tokens too: no step here has a loss, the oracle ends at the logits",
}
"""Classes of which nothing here could show an instance, and why."""

FAULTS: tuple[Fault, ...] = (
    *softmax.FAULTS,
    *attention.FAULTS,
    *attention_options.FAULTS,
    *causal.FAULTS,
    *mask.FAULTS,
    *rare_masks.FAULTS,
    *multi_head.FAULTS,
    *multi_head_options.FAULTS,
    *residual_norm.FAULTS,
    *feed_forward.FAULTS,
    *embedding.FAULTS,
    *model.FAULTS,
    *cache.FAULTS,
    *gradients.FAULTS,
    *backward.FAULTS,
    *overflow.FAULTS,
    *packed_attention.FAULTS,
    *cached_attention.FAULTS,
    *attention_cache.FAULTS,
)

CATALOGUE: tuple[Fault, ...] = (*FAULTS, *CHEATS)


def entry(identifier: str) -> Fault:
    """The entry of that id. Raises KeyError where there is none."""
    return {fault.id: fault for fault in CATALOGUE}[identifier]


def component(fault_class: str) -> str:
    """The component that a class of faults belongs to."""
    return next((name for name, classes in CLASSES.items() if fault_class in classes), "cheat")
