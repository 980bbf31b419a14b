"""torch: flex_attention compiled with dynamic=True for the CPU is C++ that does not compile, where a mask_mod holds a constant.

python torch_flex_compiled_mask.py

Needs torch and a C++ compiler. Exits with 1 while the deviation shows, with 0 once it does not.
"""

import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

n, causal = 3, False
Q, K, V = torch.randn(3, 1, 2, n, 4).unbind()
attends = torch.rand(1, 2, n, n) > 0.3
block_mask = create_block_mask(
    lambda b, h, i, j: (j >= i - 6) & (j <= i + 6) & ((j <= i) | (not causal)) & attends[b, h, i, j], 1, 2, n, n, device="cpu"
)
eager = flex_attention(Q, K, V, block_mask=block_mask)
try:
    compiled = torch.compile(flex_attention, dynamic=True)(Q, K, V, block_mask=block_mask)
except Exception as error:
    lines = [line.strip() for line in str(error).splitlines() if "error:" in line] or [str(error)[:200]]
    print(f"torch {torch.__version__}: {type(error).__name__}: {lines[0][-200:]}")
    sys.exit(1)
print(f"torch {torch.__version__}: compiled and eager differ by at most {float((compiled - eager).abs().max()):.2g}")
