"""ONNX Runtime: a masked key gets all of the weight where the score of the only other key is low enough.

python onnxruntime_masked_key.py

Needs onnx, onnxruntime and NumPy. A mask is added as the lowest finite number, not as −∞, so that a score of −a and a masked one of
+a are as good as equal from half of it on. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import onnx
import onnxruntime
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info, np_dtype_to_tensor_dtype

wrong = False
for dtype, size in ((np.dtype("float32"), 1.8e38), (np.dtype("float16"), 40_000.0)):
    kind = np_dtype_to_tensor_dtype(dtype)
    inputs = [make_tensor_value_info(name, kind, [None] * 4) for name in "QKV"]
    inputs.append(make_tensor_value_info("mask", onnx.TensorProto.BOOL, [None] * 2))
    graph = make_graph(
        [make_node("Attention", ["Q", "K", "V", "mask"], ["Y"], scale=1.0)],
        "attention",
        inputs,
        [make_tensor_value_info("Y", kind, [None] * 4)],
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 23)], ir_version=11)
    Q = np.full((1, 1, 1, 1), -np.sqrt(size), dtype)
    K, V = np.array([[[[np.sqrt(size)], [-np.sqrt(size)]]]], dtype), np.array([[[[1.0], [2.0]]]], dtype)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"Q": Q, "K": K, "V": V, "mask": np.array([[True, False]])}
    )[0]
    print(
        f"onnxruntime {onnxruntime.__version__}, {dtype}, scores −{size:g} and, masked, {size:g}: expected 1.0, got {found.item()}"
    )
    wrong |= found.item() != 1.0
sys.exit(int(wrong))
