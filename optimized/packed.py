"""A packed matrix: a weight in the blocks that a product of oneDNN or of our own reads, in the place of `linear`'s tensor.

Its numbers are the tensor's, and a product with it differs by the order of summation and by nothing else. Nothing but `linear`
can read it, no gradient goes through it, and it stays on the CPU. `optimized.packing` makes them, where they are faster.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optimized import tuned

PIXELWISE = ([0, 0], [1, 1], [1, 1], 1)  # no padding, every pixel, no holes, all channels together
NARROW = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this processor has products of packed matrices in `dtype`: of float32 where torch has oneDNN, of float64 never."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype is torch.float32 or (dtype in NARROW and getattr(torch.ops.mkldnn, NARROW[dtype])())


class Packed(ABC):
    """A matrix of `shape` (rows, columns), packed for products of so many rows; others take it too, but less fast.

    Raises ValueError for a tensor that cannot be packed: one that requires a gradient, is not on the CPU, or is of a dtype that
    this processor has no such products in.
    """

    def __init__(self, W: Float[Tensor, "rows columns"], rows: int) -> None:
        check(W)
        self._check_dtype(W.dtype)
        self.shape, self.dtype = W.shape, W.dtype
        self.blocks = self._packed(W.mT.contiguous(), rows)

    def product(self, X: Float[Tensor, "... rows"], b: Float[Tensor, " columns"] | None) -> Float[Tensor, "... columns"]:
        """X W + b. Raises ValueError where X or b is of another dtype, shape or device, or X wants a gradient."""
        rows, columns = self.shape
        if X.dtype is not self.dtype or not X.is_cpu:
            raise ValueError(f"X: expected {self.dtype} on the CPU, as the packed weights are, got {X.dtype} on {X.device}")
        if X.shape[-1] != rows:
            raise ValueError(f"X: expected {rows} features, got {X.shape[-1]}")
        if X.requires_grad and torch.is_grad_enabled():
            raise ValueError("X: expected one that requires no gradient (none goes through packed weights), got one that does")
        if b is not None and (b.dtype is not self.dtype or not b.is_cpu or b.shape != (columns,)):
            got = f"{tuple(b.shape)} of {b.dtype} on {b.device}"
            raise ValueError(f"b: expected {columns} numbers of {self.dtype} on the CPU, got {got}")
        if X.numel() == 0:
            return F.linear(X, X.new_zeros(columns, rows), b)
        return self._product(X, None if b is None else b.contiguous())  # oneDNN reads a bias as if it were contiguous

    def _check_dtype(self, dtype: torch.dtype) -> None:
        if not can_pack(dtype):
            raise ValueError(f"W: expected a dtype that oneDNN packs on this processor, got {dtype}")

    @abstractmethod
    def _packed(self, turned: Tensor, rows: int) -> Tensor:
        """Wᵀ in the blocks of the product."""

    @abstractmethod
    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        """X W + b, of arguments that fit."""


class InnerProduct(Packed):
    """In the blocks of oneDNN's inner product, which is what a linear layer is to it."""

    def _packed(self, turned: Tensor, rows: int) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(turned, rows)  # noqa: SLF001 (has no public name)

    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(X, self.blocks, b, "none", [], "")  # noqa: SLF001 (as above)


class Convolution(Packed):
    """In the blocks of oneDNN's convolution: rows are pixels of an image, features its channels, and the kernel is 1 × 1.

    The same sums by other kernels, which may be faster for few rows.
    """

    def _packed(self, turned: Tensor, rows: int) -> Tensor:
        kernel = turned[:, :, None, None].to(memory_format=torch.channels_last)
        sizes = [1, turned.shape[1], 1, rows]
        return torch.ops.mkldnn._reorder_convolution_weight(kernel, *PIXELWISE, sizes)  # noqa: SLF001 (has no public name)

    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        image = X.reshape(1, 1, -1, X.shape[-1]).contiguous().permute(0, 3, 1, 2)
        Y = torch.ops.mkldnn._convolution_pointwise(image, self.blocks, b, *PIXELWISE, "none", [], "")  # noqa: SLF001 (as above)
        return Y.permute(0, 2, 3, 1).reshape(*X.shape[:-1], -1)


class Panels(Packed):
    """In panels of as many columns as a core has registers for, row by row: what the tuned tier reads (`tuned/linear.cpp`).

    Raises `tuned.NotBuilt` where that cannot be compiled.
    """

    def _check_dtype(self, dtype: torch.dtype) -> None:
        tuned.load()
        if dtype is not torch.float32:
            raise ValueError(f"W: expected torch.float32, which the tuned tier has products of, got {dtype}")

    def _packed(self, turned: Tensor, rows: int) -> Tensor:  # noqa: ARG002 (the same for any number of rows)
        width = torch.ops.veriformer.width()
        self._linear, self._no_bias = torch.ops.veriformer.linear.default, turned.new_zeros(len(turned))
        return F.pad(turned.mT, (0, -len(turned) % width)).unflatten(1, (-1, width)).transpose(0, 1).contiguous()

    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        return self._linear(X, self.blocks, self.bias(b))

    def bias(self, b: Tensor | None) -> Tensor:
        """A bias as the product reads it: zeros where there is none."""
        return self._no_bias if b is None else b.contiguous()


def check(W: Tensor) -> None:
    """Raises ValueError for a tensor that is not to be packed, whatever the layout."""
    if W.requires_grad:
        raise ValueError("W: expected one that requires no gradient (none goes through packed weights), got one that does")
    if W.device.type != "cpu":
        raise ValueError(f"W: expected weights on the CPU, got one on {W.device}")
