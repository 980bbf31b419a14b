"""transformers: a static cache that refuses tokens, since there is no room for all of them, has counted them and written the first.

python transformers_static_full.py

Needs torch and transformers. `update` raises IndexError, and from then on the cache takes no token, not even one that it had room
for. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import torch
import transformers
from transformers.cache_utils import Cache, StaticLayer

cache = Cache(layers=[StaticLayer(max_cache_len=4)])
tokens = torch.ones(1, 1, 3, 1)
cache.update(tokens, tokens, 0)
try:
    cache.update(2 * tokens, 2 * tokens, 0)
except IndexError as refusal:
    print(f"transformers {transformers.__version__}, StaticLayer of 4, 3 tokens more than its 3: {type(refusal).__name__}")
length, held = int(cache.get_seq_length()), cache.layers[0].keys.flatten().tolist()
print(f"then: expected length 3 and keys [1.0, 1.0, 1.0, 0.0], got length {length} and keys {held}")
sys.exit(length != 3)
