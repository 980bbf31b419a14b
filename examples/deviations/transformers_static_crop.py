"""transformers: a static cache that more tokens are removed from than it has counts below zero, and loses the next tokens.

python transformers_static_crop.py

Needs torch and transformers. `crop` of a cache that grows leaves nothing, as its maintainers expect it
(https://github.com/huggingface/transformers/issues/47433). Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import torch
import transformers
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

wrong = False
for layer in (DynamicLayer(), StaticLayer(max_cache_len=4)):
    cache, name = Cache(layers=[layer]), type(layer).__name__
    token = torch.ones(1, 1, 1, 1)
    cache.update(token, token, 0)
    cache.crop(-2)
    length = int(cache.get_seq_length())
    print(f"transformers {transformers.__version__}, {name}, 2 of 1 token removed: expected length 0, got {length}")
    wrong |= length != 0
sys.exit(wrong)
