"""ONNX Runtime: Attention refuses a mask of shape (b, 1, 1, m), which ONNX says it broadcasts.

python onnxruntime_padding_mask.py

Needs onnx, onnxruntime and NumPy. onnx.ai/onnx/operators, Attention, attn_mask: "Shape must be broadcastable to 4D tensor with
shape (batch_size, q_num_heads, q_sequence_length, total_sequence_length)". Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import onnx
import onnxruntime
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL


def model(mask: np.ndarray) -> onnx.ModelProto:
    """One node."""
    inputs = [make_tensor_value_info(name, FLOAT, [None] * 4) for name in "QKV"]
    inputs.append(make_tensor_value_info("mask", BOOL, mask.shape))
    node = make_node("Attention", ["Q", "K", "V", "mask"], ["Y"])
    graph = make_graph([node], "attention", inputs, [make_tensor_value_info("Y", FLOAT, [None] * 4)])
    return make_model(graph, opset_imports=[make_opsetid("", 23)], ir_version=11)


rng = np.random.default_rng(0)
feed = {name: rng.standard_normal((2, 4, 3, 8)).astype(np.float32) for name in "QKV"}
feed["mask"] = np.array([[True, True, False], [True, True, True]])[:, None, None]
expected = ReferenceEvaluator(model(feed["mask"])).run(None, feed)[0]
whole = {**feed, "mask": np.broadcast_to(feed["mask"], (2, 1, 3, 3))}
onnxruntime.set_default_logger_severity(4)
for name, given in {"expanded to (2, 1, 3, 3)": whole, "of shape (2, 1, 1, 3)": feed}.items():
    try:
        found = onnxruntime.InferenceSession(model(given["mask"]).SerializeToString()).run(None, given)[0]
    except Exception as error:
        print(f"onnxruntime {onnxruntime.__version__}, a mask {name}: {type(error).__name__}: …{str(error).strip()[-75:]}")
        sys.exit(1)
    print(f"onnxruntime {onnxruntime.__version__}, a mask {name}: off by {np.abs(found - expected).max():.2g}")
