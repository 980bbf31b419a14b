"""torch: a bfloat16 product of matrices on a CPU with AMX gives NaN to a row because the row below it has one.

python torch_bfloat16_odd_inner_axis.py

Needs torch, and a CPU with AMX. Where the inner axis is odd, oneDNN's kernel reads pairs of numbers, the last of which is the
first of the next row, times 0: 0 · NaN is NaN. An attention written as two products of matrices then has NaN in the row of a
query because the query after it sees one; FlexAttention without `torch.compile` is written so. Exits with 1 while
the deviation shows.
"""

import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

ROWS, POISONED = 32, 16
found = {}
for inner in (32, 33):
    A = torch.ones(ROWS, inner, dtype=torch.bfloat16)
    A[POISONED] = torch.nan
    product = A @ torch.ones(inner, 64, dtype=torch.bfloat16)
    found[inner] = product.isnan().any(-1).nonzero()[:, 0].tolist()
    print(f"torch {torch.__version__}, (32, {inner}) by ({inner}, 64), NaN in row {POISONED}: NaN in rows {found[inner]}")
for keys in (32, 33):
    Q, K, V = (torch.ones(1, 1, n, 64, dtype=torch.bfloat16) for n in (ROWS, keys, keys))
    K[0, 0, 0] = torch.inf
    hidden = create_block_mask(lambda _b, _h, i, j: (j != 0) | (i == POISONED), 1, 1, ROWS, keys, device="cpu")
    found[-keys] = flex_attention(Q, K, V, block_mask=hidden).isnan().any(-1).nonzero()[:, -1].tolist()
    print(f"FlexAttention, {keys} keys, ∞ in one that query {POISONED} alone sees: NaN for queries {found[-keys]}")
sys.exit(int(any(rows != [POISONED] for rows in found.values())))
