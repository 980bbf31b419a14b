"""What of an answer is accepted: arrays of the promised kind and dtype; of anything else, one sentence that says what came."""

from typing import Any

from properties.steps import STEPS
from properties.verdicts import ImplementationError

WIDER = frozenset({"log_sum_exp"})  # may be float32 in every dtype: kernels keep it as they have it, to merge parts later
KINDS = {"torch": ("tensor", "torch.Tensor"), "numpy": ("array", "numpy.ndarray")}


def promised(step: str, dtype: str) -> str:
    """The dtype of what `step` returns, or several joined by "or"; of a step that is none of ours, an intermediate matrix."""
    kind = {"bool": "bool", "int": "int64"}.get(STEPS[step].kind if step in STEPS else "float", dtype)
    return f"{kind} or float32" if step in WIDER and kind in ("bfloat16", "float16") else kind


def accepted(answer: dict[str, Any], step: str, arrays: str, dtype: str, label: str) -> Any:
    """The values of an answer as `returned.described` gives it, checked but for their shape. Raises ImplementationError."""
    if step in STEPS and STEPS[step].kind == "nested":
        match answer["kind"]:
            case "none":
                return None
            case "plain":
                return answer["value"]
            case "nested":
                items = [accepted(item, step, arrays, dtype, label) for item in answer["items"]]
                return items if answer["names"] is None else dict(zip(answer["names"], items, strict=True))
    kind, type_name = KINDS[arrays]
    expected = promised(step, dtype)
    if answer["kind"] != kind:
        raise ImplementationError(f"{label}: expected a {type_name} of dtype {expected}, got {answer['type']}")
    if answer["dtype"] not in expected.split(" or ") or answer["values"] is None:
        raise ImplementationError(f"{label}: expected a result of dtype {expected}, got {answer['dtype']}")
    return answer["values"]
