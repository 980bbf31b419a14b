"""torch's attention kernels one by one, each called by its own name, so that none can fall back to another unseen."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench.peers.table import tensors
from bench.timer import Built
from bench.workloads import Workload
from properties.inputs.parameters import Call
from properties.verdicts import NotOffered


class _Kernel:
    """One backend of scaled_dot_product_attention."""

    name = ""
    backend: SDPBackend
    on_processor: Callable[..., Any] | None = None  # the operator behind it, so that no switch is thrown inside the clock

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """Q, K, V as tensors. Raises NotOffered for any other step, and for a backend that this device lacks."""
        if workload.step != "attention":
            raise NotOffered(f"{self.name} is an attention kernel")
        if device == "cpu" and self.on_processor is None:
            raise NotOffered(f"{self.name} needs a GPU")
        arguments = [tensors(call.args, dtype, device) for call in calls]
        return Built(self._on_processor if device == "cpu" else self._on_gpu, arguments, "", dtype)

    def _on_processor(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        assert self.on_processor is not None
        return self.on_processor(Q, K, V)[0]

    def _on_gpu(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        with sdpa_kernel(self.backend):
            return scaled_dot_product_attention(Q, K, V)


class Math(_Kernel):
    """The formula, operator by operator."""

    name = "torch.sdpa.math"
    backend = SDPBackend.MATH
    on_processor = torch.ops.aten._scaled_dot_product_attention_math  # noqa: SLF001 (the operator's public name has no backend)


class Flash(_Kernel):
    """Tiled with an online softmax."""

    name = "torch.sdpa.flash"
    backend = SDPBackend.FLASH_ATTENTION
    on_processor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 (as above)


class Efficient(_Kernel):
    """The kernel that came from xformers; GPU only."""

    name = "torch.sdpa.efficient"
    backend = SDPBackend.EFFICIENT_ATTENTION


class Cudnn(_Kernel):
    """cuDNN's; GPU only."""

    name = "torch.sdpa.cudnn"
    backend = SDPBackend.CUDNN_ATTENTION
