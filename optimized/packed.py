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


class Int8(Packed):
    """In int8 with a scale for each column, for float32; rows of X are rounded to int8 too, with a scale for each.

    With `Int8Panels` the one layout whose numbers are not the tensor's: a step of its grid is a 127th of a column's largest.
    """

    def _check_dtype(self, dtype: torch.dtype) -> None:
        if dtype is not torch.float32:
            raise ValueError(f"W: expected torch.float32, which is rounded to int8, got {dtype}")

    def _packed(self, turned: Tensor, rows: int) -> Tensor:  # noqa: ARG002 (the same for any number of rows)
        whole, self.scales = quantised(turned)
        if turned.shape[1] == 1:  # torch's product misreads a single row that lies as a column (seen in 2.13)
            return whole.mT.clone(memory_format=torch.contiguous_format)
        return whole.mT

    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        whole, scales = quantised(X.flatten(0, -2))
        sums = torch.ops.aten._int_mm(whole, self.blocks)  # noqa: SLF001 (has no public name)
        Y = (sums * scales * self.scales.mT).unflatten(0, X.shape[:-1])
        return Y if b is None else Y + b


class Panels(Packed):
    """In panels of as many columns as a core has registers for: what the tuned tier reads (`tuned/tile.h`).

    Raises `tuned.NotBuilt` where that cannot be compiled.
    """

    def _check_dtype(self, dtype: torch.dtype) -> None:
        tuned.load()
        if dtype not in tuned.dtypes():
            raise ValueError(f"W: expected a dtype that the tuned tier has products of on this processor, got {dtype}")

    def _packed(self, turned: Tensor, rows: int) -> Tensor:  # noqa: ARG002 (the same for any number of rows)
        self._linear, self._no_bias, self._scales = (
            torch.ops.veriformer.linear.default,
            turned.new_zeros(len(turned)),
            torch.empty(0),
        )
        return panels(turned)

    def _product(self, X: Tensor, b: Tensor | None) -> Tensor:
        return self._linear(X, *self.tensors(b))

    def tensors(self, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix, its scales and the bias, as the product reads them."""
        return self.blocks, self._scales, self._no_bias if b is None else b.contiguous()


class Int8Panels(Panels):
    """As `Int8`, in panels. Raises ValueError on a processor without such products."""

    def _check_dtype(self, dtype: torch.dtype) -> None:
        super()._check_dtype(dtype)
        if torch.int8 not in tuned.dtypes():
            raise ValueError("W: expected a processor with products of int8 (AVX-512 VNNI), got one without")

    def _packed(self, turned: Tensor, rows: int) -> Tensor:
        super()._packed(turned, rows)
        whole, scales = quantised(turned)
        offset = 128 * whole.sum(dim=1, dtype=torch.int32)  # the product reads rows of X as numbers from 1 to 255
        self._scales = torch.stack([scales[:, 0], offset.view(torch.float32)])
        return panels(whole)


def quantised(X: Float[Tensor, "rows columns"]) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Every row as a scale and whole numbers from −127 to 127; a row that is not finite everywhere has NaN for its scale."""
    most = X.abs().amax(dim=1, keepdim=True)
    by = torch.full_like(most, 127.0) / most  # one rounding, as in C++: a number over a tensor is a reciprocal first
    whole = (X * torch.where(most > 0, by, 0)).round().nan_to_num(0.0)
    return whole.to(torch.int8), torch.where(most.isfinite(), most, torch.nan) / 127


def panels(turned: Float[Tensor, "columns rows"]) -> Tensor:
    """A matrix as (panels, words, numbers of a panel's columns); a word is 32 bits of a column, and what is missing is 0."""
    width, numbers = torch.ops.veriformer.width(), 4 // turned.element_size()
    columns, rows = turned.shape
    padded = F.pad(turned, (0, -rows % (16 * numbers) if numbers > 1 else 0, 0, -columns % width))
    words = padded.unflatten(1, (-1, numbers)).unflatten(0, (-1, width))
    return words.transpose(1, 2).flatten(2).contiguous()


def check(W: Tensor) -> None:
    """Raises ValueError for a tensor that is not to be packed, whatever the layout."""
    if W.requires_grad:
        raise ValueError("W: expected one that requires no gradient (none goes through packed weights), got one that does")
    if W.device.type != "cpu":
        raise ValueError(f"W: expected weights on the CPU, got one on {W.device}")
