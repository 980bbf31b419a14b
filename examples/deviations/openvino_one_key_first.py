"""OpenVINO: a model with a scale whose first call has one key then weighs sixteen keys by their scores, without a softmax.

python openvino_one_key_first.py

Needs openvino and NumPy. Values are the identity, so that an answer is the weights. A model of shapes left open is compiled twice;
one of the two is first called with one key. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import openvino
from openvino import opset13

M = 16
Q, K, V = np.ones((1, 1, 1, 1)), np.arange(M).reshape(1, 1, M, 1) / 10, np.eye(M)[None, None]
calls = [[each.astype(np.float32) for each in (Q, K[:, :, :m], V[:, :, :m])] for m in (1, M)]
inputs = [opset13.parameter([-1] * 4, np.float32) for _ in "QKV"]
attention = opset13.scaled_dot_product_attention(*inputs, scale=np.float32(1.0))
model = openvino.Model([attention.output(0)], inputs, "attention")
found = {}
for said, made in (("one key", calls), ("sixteen", calls[1:])):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found[said] = [compiled(each)[0].ravel() for each in made][-1]
    shown = [round(float(each), 3) for each in found[said][[0, 1, 2, -1]]]
    version = openvino.__version__.partition("-")[0]
    print(f"openvino {version}, scores 0, 0.1 … 1.5, first called with {said}: weights {shown[:3]} … {shown[3]}")
sys.exit(int(not np.allclose(*found.values(), rtol=1e-5)))
