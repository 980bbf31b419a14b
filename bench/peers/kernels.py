"""Which kernels ran: the telling operators that one call of a torch peer dispatches. Watched after the timing."""

import warnings
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from bench.peers.base import Built

TELLING = {
    "_scaled_dot_product_flash_attention_for_cpu": "flash attention (CPU)",
    "_scaled_dot_product_flash_attention": "flash attention",
    "_scaled_dot_product_efficient_attention": "memory-efficient attention",
    "_scaled_dot_product_cudnn_attention": "cuDNN attention",
    "_scaled_dot_product_attention_math": "attention by the formula",
    "_softmax": "softmax on its own",
    "_transformer_encoder_layer_fwd": "fused encoder layer",
    "_native_multi_head_attention": "fused multi-head attention",
    "_linear_pointwise": "oneDNN linear, weights prepacked",
    "mkldnn_linear": "oneDNN linear",
    "linear": "torch's linear",
    "addmm": "torch's products",
    "mm": "torch's products",
    "bmm": "torch's batched products",
}


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be compiled: torch would import its compiler to say so, which takes 3 s."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        self.seen.add(name)
        return func(*args, **(kwargs or {}))


def kernels(built: Built, name: str) -> str:
    """The telling operators of one call, described; "" for a peer that is not torch's."""
    if name == "reference":
        return ""
    watch = _Watch()
    try:
        with watch, warnings.catch_warnings(action="ignore"):
            built.call(*built.arguments[0])
    except Exception:  # it ran unwatched, which is what was timed
        return ""
    return ", ".join(dict.fromkeys(text for operator, text in TELLING.items() if operator in watch.seen))
