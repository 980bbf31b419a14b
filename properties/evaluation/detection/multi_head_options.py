"""Faults of a whole layer that is asked for more: its causal flag beside masks and other lengths, and the weights it returns."""

from properties.evaluation.detection.fault import Fault

_LAYER = ("multi_head", "multi_head.causal", "multi_head_with_weights", "multi_head_with_weights.causal")
_MASK = "if mask is not None:\n        seen = seen & mask"
_IF_CAUSAL = "if causal:"
_PAST = "seen = seen & (torch.arange(m, device=Q.device) <= torch.arange(n, device=Q.device)[:, None])"
_WEIGHTS = "weights = softmax(hidden)"
_RETURNED = "returned = weights.to(X.dtype) if need_weights else weights[..., :0, :0]"


def _fault(
    identifier: str,
    fault_class: str,
    first: str,
    right: str,
    wrong: str,
    shows: str,
    breaks: tuple[str, ...],
    *reports: str,
) -> Fault:
    """A fault of one way of asking a layer that offers all of them."""
    steps = (first, *(step for step in _LAYER if step != first))
    return Fault(identifier, fault_class, "multi_head_options", steps, right, wrong, shows, breaks, reports)


CAUSAL = (
    _fault(
        "layers-causal-flag-lost-under-a-mask",
        "option-causal",
        "multi_head.causal",
        _IF_CAUSAL,
        "if causal and mask is None:",
        "a mask is given: it is taken for the whole one",
        ("X10", "X11"),
        "https://github.com/huggingface/transformers/pull/41966",
    ),
    _fault(
        "layers-mask-lost-under-the-causal-flag",
        "option-causal",
        "multi_head.causal",
        _MASK,
        _MASK.replace(":", " and not causal:"),
        "a mask beside the flag, which is taken for the whole one",
        ("X10", "X11"),
        "https://github.com/pytorch/pytorch/pull/178588",
    ),
    _fault(
        "layers-causal-flag-lost-with-weights",
        "option-causal",
        "multi_head_with_weights.causal",
        _IF_CAUSAL,
        "if causal and not need_weights:",
        "weights are asked for: that path has no flag",
        ("X11",),
        "https://github.com/pytorch/pytorch/issues/99282",
        "https://github.com/pytorch/pytorch/issues/172338",
    ),
    _fault(
        "layers-causal-mask-cut-from-the-other-end-of-a-square",
        "option-causal",
        "multi_head.causal",
        _PAST,
        "seen = seen & torch.ones(max(n, m), max(n, m), dtype=torch.bool, device=Q.device).tril()[-n:, -m:]",
        "n ≠ m: a square is made of the longer of both lengths, and the rows and columns taken are its last",
        ("X10", "X11"),
        "https://github.com/pytorch/executorch/pull/22443",
        "https://github.com/pytorch/pytorch/issues/103082",
    ),
)

WEIGHTS = (
    _fault(
        "weights-returned-without-the-mask",
        "returned-weights",
        "multi_head_with_weights",
        _RETURNED,
        "returned = softmax(scores).to(X.dtype) if need_weights else weights[..., :0, :0]",
        "a mask or the causal flag: the output is right, and the weights are of scores that nothing hides",
        ("X11",),
        "https://github.com/huggingface/transformers/pull/9853",
    ),
    _fault(
        "weights-returned-as-the-mean-of-the-heads",
        "returned-weights",
        "multi_head_with_weights",
        _RETURNED,
        "returned = weights.mean(dim=1, keepdim=True).expand_as(weights).to(X.dtype) if need_weights else weights[..., :0, :0]",
        "heads that differ in their weights",
        ("X11",),
        "https://github.com/facebookresearch/fairseq/issues/3365",
    ),
    _fault(
        "weights-make-a-fully-masked-row-nan",
        "fully-masked-row",
        "multi_head_with_weights",
        _WEIGHTS,
        "weights = torch.softmax(hidden, dim=-1) if need_weights else softmax(hidden)",
        "weights are asked for, and a row is fully masked",
        ("X11",),
        "https://github.com/pytorch/pytorch/issues/160064",
    ),
)

FAULTS = CAUSAL + WEIGHTS
