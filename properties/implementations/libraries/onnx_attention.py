"""ONNX's operator Attention, versions 23 and 24, in its reference evaluator and in ONNX Runtime: a graph of one node."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from typing import Any, ClassVar

import torch
from torch import Tensor

IR_VERSION = {23: 11, 24: 12}  # the oldest that know the operators


class Reference23:
    """`onnx.reference.ReferenceEvaluator`."""

    opset = 23
    dtypes = ("float64", "float32", "bfloat16", "float16")
    options = ("causal", "scale", "bias", "softcap", "grouped_heads")
    conventions: ClassVar = {"mask_polarity": "true_attends", "causal_alignment": "top_left", "fully_masked_row": "zeros"}

    def __init__(self) -> None:
        import onnx
        import onnx.reference

        self.onnx, self.runs = onnx, {}

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, softcap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """One attn_mask, a mask or a bias, and is_causal besides; Q and K are each multiplied by the root of the scale."""
        if (mask is not None and bias is not None) or (scale or 0.0) < 0:
            raise NotImplementedError("a mask and a bias, of which Attention takes one, or a negative scale")
        given = [each for each in (Q, K, V, mask, bias) if each is not None]
        if not self.takes(given[3:], Q.shape[2], K.shape[2]):
            raise NotImplementedError(f"an attn_mask of shape {tuple(given[3].shape)}")
        arrays = {name: as_array(each, self.onnx) for name, each in zip("QKVM", given, strict=False)}
        attributes = {"is_causal": int(causal), "scale": scale, "softcap": softcap}
        attributes = {name: value for name, value in attributes.items() if value is not None}
        key = (tuple((name, X.dtype, X.ndim) for name, X in arrays.items()), tuple(attributes.items()))
        if key not in self.runs:
            self.runs[key] = self._made(one_node(self.onnx, self.opset, arrays, attributes))
        return as_tensor(self.runs[key](None, arrays)[0])

    def takes(self, masks: list[Tensor], n: int, m: int) -> bool:  # noqa: ARG002
        """Whether it takes this attn_mask: the standard pads a shorter last axis with −∞, it does not broadcast it."""
        return all(each.shape[-1:] == (m,) for each in masks)

    def _made(self, model: Any) -> Any:
        """A function that runs a model."""
        return self.onnx.reference.ReferenceEvaluator(model).run


class Reference24(Reference23):
    """The same of version 24."""

    opset = 24


class Runtime23(Reference23):
    """ONNX Runtime's kernel on the CPU."""

    dtypes = ("float32", "float16")
    conventions: ClassVar = {**Reference23.conventions, "non_finite_masked_key": "leaks"}  # seen, with a row for every query

    def __init__(self) -> None:
        import onnxruntime

        super().__init__()
        onnxruntime.set_default_logger_severity(4)
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        self.runtime, self.refused = onnxruntime, (errors.NotImplemented, errors.Fail)  # a scale that is not above 0, say

    def takes(self, masks: list[Tensor], n: int, m: int) -> bool:
        """Whether it takes this attn_mask: one with a row for every query."""
        return all(each.shape[-2:] == (n, m) for each in masks)

    def _made(self, model: Any) -> Any:
        try:
            return self.runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run
        except self.refused as error:
            raise NotImplementedError(str(error)) from None


class Runtime24(Runtime23):
    """The same of version 24."""

    opset = 24


def one_node(onnx: Any, opset: int, arrays: dict[str, Any], attributes: dict[str, Any]) -> Any:
    """The graph: inputs of these ranks and dtypes, sizes left open."""
    make, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    node = make.make_node("Attention", list(arrays), ["Y"], **attributes)
    given = [make.make_tensor_value_info(name, kind(X.dtype), [None] * X.ndim) for name, X in arrays.items()]
    graph = make.make_graph([node], "attention", given, [make.make_tensor_value_info("Y", kind(arrays["Q"].dtype), [None] * 4)])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=IR_VERSION[opset])


def as_array(tensor: Tensor, onnx: Any) -> Any:
    """The same numbers; NumPy's bfloat16 is the one that onnx uses."""
    if tensor.dtype != torch.bfloat16:
        return tensor.contiguous().numpy()
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    return tensor.contiguous().view(torch.int16).numpy().view(bfloat16)


def as_tensor(array: Any) -> Tensor:
    """The same numbers."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
