"""torch: flex_attention compiled with dynamic=True for the CPU is C++ that does not compile, where it has one key and a mask.

python torch_flex_compiled_mask.py

Needs torch and a C++ compiler, and two minutes. Exits with 1 while the deviation shows, with 0 once it does not.
"""

import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

compiled = torch.compile(flex_attention, dynamic=True)
Q, K, V = torch.ones(3, 1, 1, 1, 1).unbind()
attends = torch.ones(1, 1, 1, 1, dtype=torch.bool)
block_mask = create_block_mask(lambda b, h, i, j: (j <= i) & attends[b, h, i, j], 1, 1, 1, 1, device="cpu")
print(f"torch {torch.__version__}, without a mask: {compiled(Q, K, V).item()}")
try:
    print(f"torch {torch.__version__}, with a mask: {compiled(Q, K, V, block_mask=block_mask).item()}")
except Exception as error:
    lines = [line.partition("error:")[2] for line in str(error).splitlines() if "error:" in line] or [str(error)[:200]]
    print(f"torch {torch.__version__}, with a mask: {type(error).__name__}: {lines[0].strip()[:200]}")
    sys.exit(1)
