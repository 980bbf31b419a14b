"""x-transformers: with grouped heads query head i reads key head i mod g, where others have ⌊i·g/h⌋.

python x_transformers_grouped_heads.py

Needs torch and x-transformers. A model trained with it is consistent with itself; weights of one trained elsewhere are read in
another order. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from importlib.metadata import version

import torch
from torch.nn.functional import scaled_dot_product_attention
from x_transformers.attend import Attend

Q = torch.zeros(1, 4, 1, 2)
K = torch.zeros(1, 2, 1, 2)
V = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])  # head 0 holds zeros, head 1 ones
found = Attend()(Q, K, V)[0][0, :, 0, 0].tolist()
expected = scaled_dot_product_attention(Q, K, V, enable_gqa=True)[0, :, 0, 0].tolist()
print(f"x-transformers {version('x-transformers')}: query heads 0 to 3 read key heads {found}; torch's read {expected}")
sys.exit(int(found != expected))
