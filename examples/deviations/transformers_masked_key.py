"""transformers: in eager attention a masked key gets all of the weight where the only other score is low enough.

python transformers_masked_key.py

Needs torch and transformers. A mask is the lowest finite number, added to the scores: 40000 + (−65504) is more than −40000. Exits
with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from types import SimpleNamespace

import torch
import transformers
from transformers.models.llama.modeling_llama import eager_attention_forward

module = SimpleNamespace(num_key_value_groups=1, training=False)
wrong = False
for dtype, size in ((torch.float16, 40_000.0), (torch.float32, 1.8e38)):
    Q = torch.full((1, 1, 1, 1), -(size**0.5), dtype=dtype)
    K, V = torch.tensor([[[[size**0.5], [-(size**0.5)]]]], dtype=dtype), torch.tensor([[[[1.0], [2.0]]]], dtype=dtype)
    mask = torch.tensor([[[[0.0, torch.finfo(dtype).min]]]], dtype=dtype)  # as masking_utils.eager_mask makes it
    found = float(eager_attention_forward(module, Q, K, V, mask, scaling=1.0)[0])
    print(f"transformers {transformers.__version__}, {dtype}, scores −{size:g} and, masked, {size:g}: expected 1.0, got {found}")
    wrong |= found != 1.0
sys.exit(int(wrong))
