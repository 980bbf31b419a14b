"""MLX: a masked key has as much weight as one whose score is the lowest finite number.

python mlx_lowest_score.py

Needs mlx. A masked score becomes that number, not −∞. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from importlib.metadata import version

import mlx.core as mx

Q, K = mx.array([[[[-3.4028234663852886e38]]]]), mx.array([[[[1.0], [0.0]]]])
V, mask = mx.array([[[[1.0], [2.0]]]]), mx.array([[True, False]])
found = mx.fast.scaled_dot_product_attention(Q, K, V, scale=1.0, mask=mask).item()
print(f"mlx {version('mlx')}, scores −3.4e38 and, masked, 0: expected 1.0, got {found}")
sys.exit(int(found != 1.0))
