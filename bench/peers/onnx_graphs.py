"""Each step at its sizes as an ONNX graph of standard operators (opset 23, whose Attention knows heads), weights inside.

Every runtime that reads ONNX is handed these very graphs.
"""

# A machine without ONNX has nothing to look up.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.workloads import Workload
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

OPSET, IR_VERSION = 23, 11
EPSILON = 1e-5


class Graph:
    """An ONNX graph in the making: every method adds nodes and gives the name of its result."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        kinds = [TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT for array in inputs]
        self.inputs = [
            helper.make_tensor_value_info(f"input{i}", kind, array.shape)
            for i, (kind, array) in enumerate(zip(kinds, inputs, strict=True))
        ]
        self.names = [value.name for value in self.inputs]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node."""
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Weights, in float32; ids stay what they are."""
        name = f"weight{len(self.constants)}"
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(kept), name))
        return name

    def linear(self, X: str, W: np.ndarray, b: np.ndarray) -> str:
        """X W + b."""
        return self.add("Add", self.add("MatMul", X, self.constant(W)), self.constant(b))

    def norm(self, X: str, gain: np.ndarray, bias: np.ndarray) -> str:
        """LayerNorm over the features."""
        return self.add("LayerNormalization", X, self.constant(gain), self.constant(bias), axis=-1, epsilon=EPSILON)

    def multi_head(self, X: str, M: str, h: int, heads: Nested, *, causal: bool = False) -> str:
        """All heads in one Attention node."""
        Q, K, V = (self.linear(of, heads[f"W_{k}"], heads[f"b_{k}"]) for of, k in ((X, "Q"), (M, "K"), (M, "V")))
        found = self.add("Attention", Q, K, V, q_num_heads=h, kv_num_heads=h, is_causal=int(causal))
        return self.linear(found, heads["W_O"], heads["b_O"])

    def feed_forward(self, X: str, weights: Nested) -> str:
        """Two linear maps with a ReLU between."""
        hidden = self.add("Relu", self.linear(X, weights["W_1"], weights["b_1"]))
        return self.linear(hidden, weights["W_2"], weights["b_2"])

    def encoder_layer(self, X: str, h: int, layer: Nested) -> str:
        """Two sublayers."""
        X = self.norm(self.add("Add", X, self.multi_head(X, X, h, layer["self_attention"])), **layer["norm_1"])
        return self.norm(self.add("Add", X, self.feed_forward(X, layer["feed_forward"])), **layer["norm_2"])

    def decoder_layer(self, X: str, M: str, h: int, layer: Nested) -> str:
        """Three sublayers."""
        X = self.norm(self.add("Add", X, self.multi_head(X, X, h, layer["self_attention"], causal=True)), **layer["norm_1"])
        X = self.norm(self.add("Add", X, self.multi_head(X, M, h, layer["cross_attention"])), **layer["norm_2"])
        return self.norm(self.add("Add", X, self.feed_forward(X, layer["feed_forward"])), **layer["norm_3"])

    def embed(self, tokens: str, table: np.ndarray, n: int) -> str:
        """Look up, scale, add positions."""
        scale, positions = np.sqrt(table.shape[1]), oracle("positional_encoding", n, table.shape[1])
        rows = self.add("Mul", self.add("Gather", self.constant(table), tokens), self.constant(np.asarray(scale)))
        return self.add("Add", rows, self.constant(positions))

    def transformer(self, h: int, parameters: Nested, m: int, n: int) -> str:
        """The whole."""
        source, target = self.names
        M, X = self.embed(source, parameters["source_embedding"], m), self.embed(target, parameters["target_embedding"], n)
        for layer in parameters["encoder"]:
            M = self.encoder_layer(M, h, layer)
        for layer in parameters["decoder"]:
            X = self.decoder_layer(X, M, h, layer)
        return self.linear(X, parameters["W_out"], parameters["b_out"])

    def model(self, result: str) -> onnx.ModelProto:
        """The whole graph, whose only output is `result`."""
        output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "step", self.inputs, [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


STEPS: dict[str, Callable[[Graph, Nested, Workload], str]] = {
    "attention": lambda graph, _, __: graph.add("Attention", *graph.names),
    "softmax": lambda graph, _, __: graph.add("Softmax", *graph.names, axis=-1),
    "residual_norm": lambda graph, given, _: graph.norm(graph.add("Add", *graph.names), given["gain"], given["bias"]),
    "feed_forward": lambda graph, given, _: graph.feed_forward(graph.names[0], given),
    "output_projection": lambda graph, given, _: graph.linear(graph.names[0], given["W"], given["b"]),
    "multi_head": lambda graph, given, _: graph.multi_head(graph.names[0], graph.names[1], given["h"], given),
    "encoder_layer": lambda graph, given, _: graph.encoder_layer(graph.names[0], given["h"], given["layer"]),
    "decoder_layer": lambda graph, given, _: graph.decoder_layer(graph.names[0], graph.names[1], given["h"], given["layer"]),
    "transformer": lambda graph, given, workload: graph.transformer(
        given["h"], given["parameters"], workload.sizes["m"], workload.sizes["n"]
    ),
}


def model_of(
    workload: Workload, calls: list[Call], dtype: str, device: str, runtime: str, dtypes: tuple[str, ...]
) -> onnx.ModelProto:
    """The model of a step at these sizes, with inputs input0, input1, …: float32, ids int64. A runtime has products in `dtypes`.

    Raises NotOffered, in the name of `runtime`, for another step, dtype or device.
    """
    if dtype not in dtypes or device != "cpu" or workload.step not in STEPS:
        raise NotOffered(f"{runtime} is timed in {' and '.join(dtypes)} on the CPU, on {', '.join(STEPS)}")
    graph = Graph(list(calls[0].args))
    return graph.model(STEPS[workload.step](graph, calls[0].kwargs, workload))


def arguments_of(calls: list[Call]) -> list[tuple[np.ndarray, ...]]:
    """The inputs of every variant as the graphs take them, one after another."""
    return [tuple(a if a.dtype == np.int64 else a.astype(np.float32) for a in call.args) for call in calls]
