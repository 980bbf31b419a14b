"""x-transformers: a masked key has as much weight as one whose score is the lowest finite number.

python x_transformers_lowest_score.py

Needs torch and x-transformers. A masked score becomes that number, not −∞. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys
from importlib.metadata import version

import torch
from x_transformers.attend import Attend

Q, K = torch.tensor([[[[torch.finfo(torch.float32).min]]]]), torch.tensor([[[[1.0], [0.0]]]])
V, mask = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[True, False]]]])
found = float(Attend(scale=1.0)(Q, K, V, mask=mask)[0])
print(f"x-transformers {version('x-transformers')}, scores −3.4e38 and, masked, 0: expected 1.0, got {found}")
sys.exit(int(found != 1.0))
