"""transformers: is_causal of its sdpa function means another mask for one query than for several.

python transformers_sdpa_one_query.py

Needs torch and transformers. Several queries begin where the keys begin (top left); one alone is the last (bottom right), as it is
when a cache is decoded from. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from types import SimpleNamespace

import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

module = SimpleNamespace(num_key_value_groups=1, training=False)
K, V = torch.zeros(1, 1, 4, 2), torch.arange(4.0).expand(1, 1, 2, 4).mT.contiguous()
first = {}
for n in (1, 2):
    Q = torch.zeros(1, 1, n, 2)
    found = ALL_ATTENTION_FUNCTIONS["sdpa"](module, Q, K, V, None, scaling=1.0, is_causal=True)[0]
    first[n] = float(found[0, 0, 0, 0])
    print(f"transformers {transformers.__version__}: values 0, 1, 2, 3; the first of {n} causal queries gets {first[n]}")
sys.exit(int(first[1] != first[2]))
