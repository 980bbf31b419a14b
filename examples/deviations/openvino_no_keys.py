"""OpenVINO: attention to no keys returns what the memory of its result held before.

python openvino_no_keys.py

Needs openvino and NumPy. The first call's result is of nines; the second, of the same shape, attends to no keys: zeros, or NaN,
would be an answer. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import numpy as np
import openvino
from openvino import opset13

inputs = [opset13.parameter([-1] * 4, np.float32) for _ in range(3)]
model = openvino.Model([opset13.scaled_dot_product_attention(*inputs).output(0)], inputs, "attention")
attention = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
Q, keys, values = (np.full((1, 1, n, 2), 9.0, np.float32) for n in (2, 3, 3))
attention([Q, keys, values])
found = attention([Q, keys[:, :, :0], values[:, :, :0]])[0].ravel()
print(f"openvino {openvino.__version__.partition('-')[0]}: attention to no keys, after one to nines: {found.tolist()}")
sys.exit(int(not (np.isnan(found).all() or (found == 0).all())))
