"""ONNX's operator Attention, versions 23 and 24, in its reference evaluator and in ONNX Runtime: a graph of one node."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

IR_VERSION = {23: 11, 24: 12}  # the oldest that know the operators


def evaluator(model: Any) -> Callable[..., Any]:
    """What runs a model in the reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run


def session(model: Any) -> Callable[..., Any]:
    """What runs a model in ONNX Runtime; it refuses one that it has no kernel for, a scale that is not above 0, say."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run
    except (errors.NotImplemented, errors.Fail) as error:
        raise NotImplementedError(str(error)) from None


class Reference23:
    """`onnx.reference.ReferenceEvaluator`."""

    made = staticmethod(evaluator)
    opset, whole = 23, 1  # how many of the last axes of an attn_mask are not broadcast; a shorter last one is padded with −∞
    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    options = ("causal", "scale", "bias", "softcap", "grouped_heads")
    conventions: ClassVar = {"mask_polarity": "true_attends", "causal_alignment": "top_left", "fully_masked_row": "zeros"}
    contract: ClassVar = {dtype: {"accumulation": dtype} for dtype in ("bfloat16", "float16")}  # softmax_precision is not given

    def __init__(self) -> None:
        self.graphs = Graphs(self.opset, self.made)

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None, softcap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """One attn_mask, a mask or a bias, and is_causal besides; Q and K are each multiplied by the root of the scale."""
        if (mask is not None and bias is not None) or (scale or 0.0) < 0:
            raise NotImplementedError("a mask and a bias, of which Attention takes one, or a negative scale")
        given = [each for each in (Q, K, V, mask, bias) if each is not None]
        if any(each.shape[-self.whole :] != (Q.shape[2], K.shape[2])[-self.whole :] for each in given[3:]):
            raise NotImplementedError(f"an attn_mask of shape {tuple(given[3].shape)}")
        attributes = {"is_causal": int(causal), "scale": scale, "softcap": softcap}
        return self.graphs.run(dict(zip("QKVM", given, strict=False)), attributes)[0]

    def attention_cache(self, K: Tensor, V: Tensor) -> "Past":
        """Each call's present keys and values are the next one's past."""
        return Past(self, K, V)


class Reference24(Reference23):
    """The same of version 24."""

    opset = 24


class Runtime23(Reference23):
    """ONNX Runtime's kernel on the CPU."""

    made, whole = staticmethod(session), 2
    dtypes = ("float32", "float16")
    conventions: ClassVar = {**Reference23.conventions, "non_finite_masked_key": "leaks"}  # seen, with a row for every query
    contract: ClassVar = {}


class Runtime24(Runtime23):
    """The same of version 24."""

    opset = 24


class Graphs:
    """Graphs of one node, each made once."""

    def __init__(self, opset: int, made: Callable[[Any], Callable[..., Any]]) -> None:
        import onnx

        self.onnx, self.opset, self.made, self.runs = onnx, opset, made, {}

    def run(self, given: dict[str, Tensor], attributes: dict[str, Any], outputs: tuple[str, ...] = ("Y",)) -> list[Tensor]:
        """One call, with these inputs at the places that the operator has for them."""
        arrays = {name: as_array(each, self.onnx) for name, each in given.items()}
        attributes = {name: value for name, value in attributes.items() if value is not None}
        key = (tuple((name, X.dtype, X.ndim) for name, X in arrays.items()), tuple(attributes.items()), outputs)
        if key not in self.runs:
            self.runs[key] = self.made(one_node(self.onnx, self.opset, arrays, attributes, outputs))
        return [as_tensor(each) for each in self.runs[key](None, arrays)]


class Past:
    """A cache that lives in a graph's inputs and outputs: past_key and past_value, present_key and present_value."""

    def __init__(self, attention: Reference23, K: Tensor, V: Tensor) -> None:
        self.attention, self.K, self.V = attention, K, V

    @property
    def length(self) -> int:
        """How many tokens are past by now."""
        return self.K.shape[2]

    def attend(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """Causal behind what is past; nothing is handed over as past where there is none."""
        past = {"past_key": self.K, "past_value": self.V} if self.length else {}
        given = {"Q": Q, "K": K, "V": V, **past}
        output, self.K, self.V = self.attention.graphs.run(given, {"is_causal": 1}, ("Y", "present_key", "present_value"))
        return output

    def rollback(self, length: int) -> None:
        """A shorter past."""
        if length < 0:
            raise ValueError(f"length: expected at least 0, got {length}")
        self.K, self.V = self.K[:, :, :length], self.V[:, :, :length]

    def reorder(self, rows: Tensor) -> None:
        """Other rows of it."""
        self.K, self.V = self.K[rows], self.V[rows]

    def copy(self) -> "Past":
        """The same past."""
        return Past(self.attention, self.K, self.V)


def one_node(onnx: Any, opset: int, arrays: dict[str, Any], attributes: dict[str, Any], outputs: tuple[str, ...]) -> Any:
    """The graph: inputs of these ranks and dtypes, sizes left open."""
    make, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    inputs = [*arrays] if "past_key" not in arrays else ["Q", "K", "V", "", "past_key", "past_value"]
    node = make.make_node("Attention", inputs, list(outputs), **attributes)
    given = [make.make_tensor_value_info(name, kind(X.dtype), [None] * X.ndim) for name, X in arrays.items()]
    got = [make.make_tensor_value_info(name, kind(arrays["Q"].dtype), [None] * 4) for name in outputs]
    graph = make.make_graph([node], "attention", given, got)
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
