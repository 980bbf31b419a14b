"""torch's attention kernels one by one, each called by its own name: none falls back to another unseen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench.peers.base import Built
from bench.peers.torch_common import tensors
from bench.workloads import Workload
from properties.inputs.parameters import Call
from properties.verdicts import NotOffered


@dataclass(frozen=True)
class Kernel:
    """One backend of scaled_dot_product_attention."""

    name: str
    backend: SDPBackend
    on_processor: Callable[..., Any] | None = None  # the operator behind it, so that no switch is thrown inside the clock

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:  # noqa: ARG002 (attention is all it has)
        """Q, K, V as tensors. Raises NotOffered for a backend that this device lacks."""
        if device == "cpu" and self.on_processor is None:
            raise NotOffered(f"{self.name} needs a GPU")
        call = self._on_processor if device == "cpu" else self._on_gpu
        return Built(call, [tensors(call.args, dtype, device) for call in calls], "", dtype)

    def _on_processor(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        assert self.on_processor is not None
        return self.on_processor(Q, K, V)[0]

    def _on_gpu(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        with sdpa_kernel(self.backend):
            return scaled_dot_product_attention(Q, K, V)


# operators with a public name have no choice of the backend
MATH = Kernel("torch.sdpa.math", SDPBackend.MATH, torch.ops.aten._scaled_dot_product_attention_math)  # noqa: SLF001
FLASH = Kernel("torch.sdpa.flash", SDPBackend.FLASH_ATTENTION, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)  # noqa: SLF001
EFFICIENT = Kernel("torch.sdpa.efficient", SDPBackend.EFFICIENT_ATTENTION)
CUDNN = Kernel("torch.sdpa.cudnn", SDPBackend.CUDNN_ATTENTION)
