"""onnx: the reference evaluator's Attention in bfloat16 adds up the exponentials in bfloat16, and rounds Q and K times a root.

python onnx_reference_bfloat16.py

Needs onnx and NumPy. The operator is described so: softmax is of the precision of Q and K unless softmax_precision says another,
and Q and K are each multiplied by the root of the scale. Ones added up in bfloat16 are never more than 256. Exits with 1 while that
shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from typing import Any

import numpy as np
import onnx
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info, tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

BFLOAT16, FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


def attention(Q: Any, K: Any, V: Any, dtype: int = BFLOAT16, **attributes: int) -> float:
    """The first number of the answer."""
    inputs = [make_tensor_value_info(name, dtype, [None] * 4) for name in "QKV"]
    node = make_node("Attention", ["Q", "K", "V"], ["Y"], **attributes)
    graph = make_graph([node], "attention", inputs, [make_tensor_value_info("Y", dtype, [None] * 4)])
    model = make_model(graph, opset_imports=[make_opsetid("", 23)], ir_version=11)
    given = {name: X.astype(tensor_dtype_to_np_dtype(dtype)) for name, X in zip("QKV", (Q, K, V), strict=True)}
    return float(ReferenceEvaluator(model).run(None, given)[0].ravel()[0])


version, nothing, ones = f"onnx {onnx.__version__}", np.zeros((1, 1, 512, 8)), np.ones((1, 1, 512, 8))
sums = attention(nothing, nothing, ones), attention(nothing, nothing, ones, softmax_precision=FLOAT)
print(f"{version}, bfloat16, 512 equal keys, values 1: expected 1.0, got {sums[0]}; with softmax_precision=FLOAT {sums[1]}")

Q, K, V = (np.array(rows, float)[None, None] for rows in ([[24, 16]], [[20, -30], [0, 0]], [[1], [0]]))
weights = attention(Q, K, V, FLOAT), attention(Q, K, V, softmax_precision=FLOAT)
print(f"{version}, scores (24·20 − 16·30)/√2 and 0: weights of {weights[0]:.3f} in float32, and in bfloat16 {weights[1]:.3f}")
sys.exit(int(sums[0] != 1.0))
