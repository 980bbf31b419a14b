"""torch: the CPU's flash kernel gives NaN for is_causal with a scale of 0 or below.

python torch_flash_causal_scale.py

Needs torch. What is hidden becomes −∞ before it is scaled: −∞ · 0 is NaN, and −∞ · −1 is +∞. The composite of matrix products and a
mask instead of is_causal are right. Exits with 1 while the deviation shows.
"""

import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

Q = K = torch.ones(1, 1, 2, 2)
V = torch.tensor([[[[1.0, 1.0], [2.0, 2.0]]]])
found = {}
for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
    for scale in (0.0, -1.0):
        with sdpa_kernel(backend):
            found[backend, scale] = scaled_dot_product_attention(Q, K, V, is_causal=True, scale=scale)[0, 0, :, 0].tolist()
        print(
            f"torch {torch.__version__}, {backend.name}, causal, scale {scale:g}: expected [1.0, 1.5], got {found[backend, scale]}"
        )
sys.exit(int(any(each != [1.0, 1.5] for each in found.values())))
