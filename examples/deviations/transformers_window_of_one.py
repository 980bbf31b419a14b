"""transformers: a sliding cache that grows keeps every token where the window is one.

python transformers_window_of_one.py

Needs torch and transformers. The last `window - 1` tokens are `[-window + 1 :]`, which is all of them for a window of 1. Exits with
1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import torch
import transformers
from transformers.cache_utils import Cache, DynamicSlidingWindowLayer, StaticSlidingWindowLayer

dynamic = Cache(layers=[DynamicSlidingWindowLayer(sliding_window=1)])
static = Cache(layers=[StaticSlidingWindowLayer(max_cache_len=8, sliding_window=1)])
wrong = False
for cache in (static, dynamic):
    for number in (1.0, 2.0, 3.0):
        token = torch.full((1, 1, 1, 1), number)
        keys, _ = cache.update(token, token, 0)
    held = keys.flatten().tolist()
    name = type(cache.layers[0]).__name__
    print(f"transformers {transformers.__version__}, {name}, window 1, third token: expected keys [3.0], got {held}")
    wrong |= held != [3.0]
sys.exit(wrong)
