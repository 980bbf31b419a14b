"""OpenVINO's operation ScaledDotProductAttention (opset 13), compiled for the CPU."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor


class Attention:
    """In float32: OpenVINO's inference precision on the CPU, where it is not asked for less."""

    dtypes = ("float32",)
    options = ("causal", "scale", "bias")
    conventions: ClassVar = {"mask_polarity": "true_attends"}

    def __init__(self) -> None:
        import openvino
        from openvino import opset13

        self.openvino, self.operations, self.core = openvino, opset13, openvino.Core()
        self.compiled: dict[Any, Any] = {}

    def attention(
        self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """One attention_mask, a mask or a bias; it is ignored where causal is asked for."""
        given = [each for each in (Q, K, V, mask, bias) if each is not None]
        if len(given) + causal > 4:
            raise NotImplementedError("more than one of attention_mask (a mask or a bias) and causal")
        if given[-1].ndim < 2:
            raise NotImplementedError(f"an attention_mask of shape {tuple(given[-1].shape)}")
        arrays = [each.contiguous().numpy() for each in given]
        key = tuple((X.dtype.name, X.ndim) for X in arrays), scale, causal
        if key not in self.compiled:
            inputs = [self.operations.parameter([-1] * X.ndim, X.dtype.type) for X in arrays]
            options = {"causal": causal} | ({} if scale is None else {"scale": np.float32(scale)})
            node = self.operations.scaled_dot_product_attention(*inputs, **options)
            model = self.openvino.Model([node.output(0)], inputs, "attention")
            self.compiled[key] = self.core.compile_model(
                model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            )
        return torch.from_numpy(self.compiled[key](arrays)[0].copy())
