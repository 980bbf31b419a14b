"""onnx: with is_causal and a mask of one row for all queries, the reference evaluator hides from all what the first may not see.

python onnx_reference_causal_mask.py

Needs onnx and NumPy. The causal mask is made in the shape of attn_mask, before that is broadcast: with the shape (1, 3) every query
sees key 0 alone, with (3, 3) each sees the keys before it. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import onnx
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
inputs = [*(make_tensor_value_info(name, FLOAT, [None] * 4) for name in "QKV"), make_tensor_value_info("mask", BOOL, [None] * 2)]
node = make_node("Attention", ["Q", "K", "V", "mask"], ["Y"], is_causal=1)
graph = make_graph([node], "attention", inputs, [make_tensor_value_info("Y", FLOAT, [None] * 4)])
evaluator = ReferenceEvaluator(make_model(graph, opset_imports=[make_opsetid("", 23)], ir_version=11))
zeros, V = np.zeros((1, 1, 3, 1), np.float32), np.arange(3, dtype=np.float32)[None, None, :, None]
found = {}
for shape in ((3, 3), (1, 3)):
    found[shape] = evaluator.run(None, {"Q": zeros, "K": zeros, "V": V, "mask": np.ones(shape, bool)})[0].ravel().tolist()
    print(f"onnx {onnx.__version__}, causal, values 0, 1, 2, a mask of shape {shape}, all True: {found[shape]}")
sys.exit(int(found[1, 3] != found[3, 3]))
