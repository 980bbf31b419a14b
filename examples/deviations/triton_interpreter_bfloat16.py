"""Triton's interpreter: tl.dot of bfloat16 multiplies the bits of its operands, not their numbers.

TRITON_INTERPRET=1 python triton_interpreter_bfloat16.py

Needs triton and torch. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false
# ruff: noqa: ANN001, ANN201 (a kernel's arguments are pointers, and it returns nothing)

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
import triton.language as tl


@triton.jit
def product(X, Y, Z, N: tl.constexpr):
    """Z = X Y, of N × N numbers."""
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(Z + at, tl.dot(tl.load(X + at), tl.load(Y + at)))


wrong = False
for dtype in (torch.float16, torch.bfloat16):
    X, Z = torch.eye(16, dtype=dtype), torch.empty(16, 16)
    product[(1,)](X, X, Z, N=16)  # type: ignore[index]
    print(f"triton {triton.__version__}, {dtype}: the identity times itself holds {Z[0, 0].item():g} where 1 is expected")
    wrong |= not torch.equal(Z, torch.eye(16))
sys.exit(int(wrong))
