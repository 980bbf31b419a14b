"""PyTorch's own: attention kernels one by one, nn.MultiheadAttention, the layers, nn.Transformer, on our weights.

Where torch has no module (softmax, the norm after a sum, a linear map) its functions are timed as a user would write them.
Weights are given in torch's layout: transposed and contiguous.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.peers.base import Built
from bench.peers.torch_common import learn, tensors
from bench.workloads import Workload
from properties.implementations.impl import DTYPES
from properties.implementations.weights import to_torch
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

Forward = Callable[..., Tensor]


@dataclass(frozen=True)
class TorchModules:
    """nn modules in evaluation mode: operator by operator, with their fused kernels, or through torch.compile."""

    name: str
    fastpath: bool = False  # fused kernels, which only self-attention and encoder layers have
    compiled: bool = False

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """Raises NotOffered for the positional encoding, which torch does not have."""
        call = _forward(workload.step, tensors(calls[0].kwargs, dtype, device), dtype, device)
        call, fastpath = torch.compile(call) if self.compiled else call, self.fastpath

        def run(*args: Any) -> Tensor:
            torch.backends.mha.set_fastpath_enabled(fastpath)
            return call(*args)

        dispatched = "torch.compile (inductor)" if self.compiled else ""
        return Built(run, [tensors(call.args, dtype, device) for call in calls], dispatched, dtype)


EAGER = TorchModules("torch.eager")
FASTPATH = TorchModules("torch.fastpath", fastpath=True)
COMPILED = TorchModules("torch.compiled", compiled=True)


@dataclass(frozen=True)
class Kernel:
    """One backend of scaled_dot_product_attention, called by its own name: it cannot fall back to another unseen."""

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
            return F.scaled_dot_product_attention(Q, K, V)


# operators with a public name have no choice of the backend
MATH = Kernel("torch.sdpa.math", SDPBackend.MATH, torch.ops.aten._scaled_dot_product_attention_math)  # noqa: SLF001
FLASH = Kernel("torch.sdpa.flash", SDPBackend.FLASH_ATTENTION, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)  # noqa: SLF001
EFFICIENT = Kernel("torch.sdpa.efficient", SDPBackend.EFFICIENT_ATTENTION)
CUDNN = Kernel("torch.sdpa.cudnn", SDPBackend.CUDNN_ATTENTION)


def _forward(step: str, given: Nested, dtype: str, device: str) -> Forward:
    """A function of the inputs alone."""
    match step:
        case "embedding":
            return lambda tokens: F.embedding(tokens, given["table"]) * math.sqrt(given["table"].shape[1])
        case "attention":
            return _formula
        case "softmax":
            return partial(torch.softmax, dim=-1)
        case "mask":
            return lambda n, m: torch.ones(n, m, dtype=torch.bool, device=device).tril()
        case "residual_norm":
            return lambda X, Y: F.layer_norm(X + Y, X.shape[-1:], given["gain"], given["bias"])
        case "feed_forward":
            W_1, W_2 = (given[name].mT.contiguous() for name in ("W_1", "W_2"))
            return lambda X: F.linear(F.relu(F.linear(X, W_1, given["b_1"])), W_2, given["b_2"])
        case "output_projection":
            W = given["W"].mT.contiguous()
            return lambda X: F.linear(X, W, given["b"])
        case "multi_head":
            return _multi_head(given, dtype, device)
        case "encoder_layer" | "decoder_layer":
            return _layer(step, given, dtype, device)
        case "transformer" | "generation" | "training":
            return _whole(step, given, dtype, device)
        case _:
            raise NotOffered(f"torch has no {step}")


def _formula(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return torch.softmax(Q @ K.mT / math.sqrt(Q.shape[-1]), dim=-1) @ V


def _multi_head(given: Nested, dtype: str, device: str) -> Forward:
    d_model = len(given["W_Q"])
    module = nn.MultiheadAttention(d_model, given["h"], batch_first=True, device=device, dtype=DTYPES[dtype])
    names = {"in_proj_weight": [given[f"W_{k}"].mT for k in "QKV"], "in_proj_bias": [given[f"b_{k}"] for k in "QKV"]}
    state = {name: torch.cat(parts) for name, parts in names.items()}
    module.load_state_dict(state | {"out_proj.weight": given["W_O"].mT, "out_proj.bias": given["b_O"]})
    module.eval().requires_grad_(requires_grad=False)
    return lambda X, M: module(X, M, M, need_weights=False)[0]


def _layer(step: str, given: Nested, dtype: str, device: str) -> Forward:
    side = step.removesuffix("_layer")
    stacks = {"encoder": [], "decoder": [], side: [given["layer"]]}
    state = {name.removeprefix(f"{side}.layers.0."): tensor for name, tensor in to_torch(stacks).items()}
    d_model, d_ff = given["layer"]["feed_forward"]["W_1"].shape
    options = {"dropout": 0.0, "batch_first": True, "device": device, "dtype": DTYPES[dtype]}
    make = nn.TransformerEncoderLayer if side == "encoder" else nn.TransformerDecoderLayer
    module = make(d_model, given["h"], d_ff, **options)
    module.load_state_dict(state)
    module.eval().requires_grad_(requires_grad=False)
    if side == "encoder":
        return module
    return lambda X, M: module(X, M, tgt_mask=_hidden(X.shape[1], device), tgt_is_causal=True)


def _hidden(n: int, device: str) -> Tensor:
    """torch's polarity: True hides."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


class Whole(nn.Module):
    """nn.Transformer between two embeddings, with sines and cosines added, and an output projection."""

    def __init__(self, given: Nested, dtype: str, device: str) -> None:
        super().__init__()
        parameters, self.options = given["parameters"], {"device": device, "dtype": DTYPES[dtype]}
        layers = parameters["encoder"]
        d_model, d_ff = layers[0]["feed_forward"]["W_1"].shape
        self.core = nn.Transformer(
            d_model, given["h"], len(layers), len(layers), d_ff, dropout=0.0, batch_first=True, **self.options
        )
        self.core.encoder.norm = self.core.decoder.norm = None  # post-norm has no final norm
        self.core.load_state_dict(to_torch({name: parameters[name] for name in ("encoder", "decoder")}))
        self.source, self.target = (nn.Parameter(parameters[f"{side}_embedding"]) for side in ("source", "target"))
        self.W_out = nn.Parameter(parameters["W_out"].mT.contiguous())
        self.b_out = nn.Parameter(parameters["b_out"])
        self.positions = _positions(1024, d_model).to(**self.options)

    def embed(self, tokens: Tensor, table: Tensor) -> Tensor:
        """Look up, scale, add positions."""
        return F.embedding(tokens, table) * math.sqrt(table.shape[1]) + self.positions[: tokens.shape[1]]

    def encode(self, source: Tensor) -> Tensor:
        """The memory."""
        return self.core.encoder(self.embed(source, self.source))

    def decode(self, target: Tensor, memory: Tensor, last: int | None = None) -> Tensor:
        """The logits after every target token, or after the `last` ones only."""
        hidden = _hidden(target.shape[1], self.options["device"])
        X = self.core.decoder(self.embed(target, self.target), memory, tgt_mask=hidden, tgt_is_causal=True)
        return F.linear(X if last is None else X[:, -last:], self.W_out, self.b_out)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits."""
        return self.decode(target, self.encode(source))

    def generate(self, source: Tensor, *, bos: int, length: int) -> Tensor:
        """Greedy, the source read once; nn.Transformer has no cache, so that all tokens are computed for each."""
        memory = self.encode(source)
        target = torch.full((len(source), 1), bos, device=source.device)
        for _ in range(length):
            target = torch.cat([target, self.decode(target, memory, last=1)[:, -1].argmax(-1, keepdim=True)], dim=1)
        return target[:, 1:]


def _whole(step: str, given: Nested, dtype: str, device: str) -> Forward:
    model = Whole(given, dtype, device)
    if step == "training":
        return learn(model.train(), list(model.parameters()))
    model.eval().requires_grad_(requires_grad=False)
    return model if step == "transformer" else partial(model.generate, bos=given["bos"], length=given["length"])


def _positions(n: int, d_model: int) -> Tensor:
    """The encoding of positions 0 … n − 1, computed in float64."""
    angles = torch.arange(n, dtype=torch.float64)[:, None] * 10000.0 ** (
        -torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
    )
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
