"""transformers (Llama's eager attention) and x-transformers: float64 goes in and comes out, and the softmax is float32.

python float64_softmax.py

Needs torch, and transformers or x-transformers. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import importlib
import math
import sys
from importlib.metadata import version
from types import SimpleNamespace

import torch

torch.manual_seed(0)
Q, K, V = torch.randn(3, 1, 2, 4, 8, dtype=torch.float64).unbind()
exact = torch.softmax(Q @ K.mT / math.sqrt(8), dim=-1) @ V
wrong = False
for package, module in {
    "transformers": "transformers.models.llama.modeling_llama",
    "x-transformers": "x_transformers.attend",
}.items():
    try:
        library = importlib.import_module(module)
    except ModuleNotFoundError:
        continue
    if package == "transformers":
        self = SimpleNamespace(num_key_value_groups=1, training=False)
        found = library.eager_attention_forward(self, Q, K, V, None, scaling=8**-0.5)[0].transpose(1, 2)
    else:
        found = library.Attend()(Q, K, V)[0]
    error = float((found - exact).abs().max())
    print(f"{package} {version(package)}: {found.dtype}, off by {error:.2g}; float64 resolves {torch.finfo(torch.float64).eps:.2g}")
    wrong |= error > torch.finfo(torch.float32).eps / 100
sys.exit(int(wrong))
