"""onnx: the reference evaluator's Attention in float64 takes the root of its attribute scale in float32.

python onnx_reference_scale.py

Needs onnx and NumPy. Without the attribute, and with one whose root float32 holds, it is right to float64. Exits with 1 while the
deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import onnx
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

DOUBLE = onnx.TensorProto.DOUBLE
rng = np.random.default_rng(0)
Q, K, V = rng.standard_normal((3, 1, 1, 4, 8))
inputs = [make_tensor_value_info(name, DOUBLE, [None] * 4) for name in "QKV"]
worst = {}
for scale in (0.25, 0.5):
    node = make_node("Attention", ["Q", "K", "V"], ["Y"], scale=scale)
    graph = make_graph([node], "attention", inputs, [make_tensor_value_info("Y", DOUBLE, [None] * 4)])
    model = make_model(graph, opset_imports=[make_opsetid("", 23)], ir_version=11)
    found = ReferenceEvaluator(model).run(None, {"Q": Q, "K": K, "V": V})[0]
    weights = np.exp(scale * (Q @ K.mT))
    exact = weights / weights.sum(axis=-1, keepdims=True) @ V
    worst[scale] = float(np.abs(found - exact).max())
    print(f"onnx {onnx.__version__}, float64, scale={scale}: off by {worst[scale]:.2g}")
sys.exit(int(worst[0.5] > 1000 * max(worst[0.25], np.finfo(np.float64).eps)))
