"""The peers by name, and how one is found: built in, or a user's own `module:name`."""

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import torch

from bench.timer import Built
from bench.workloads import KINDS, Workload
from properties.implementations.impl import DTYPES
from properties.inputs.parameters import Call

ALL = (*KINDS,)
LAYERS = ("encoder_layer", "transformer", "generation")
ONE_CALL = tuple(step for step in KINDS if step not in {"generation", "training"})
GRAPHS = tuple(step for step in ONE_CALL if step not in {"embedding", "positional_encoding", "mask"})


class Row(NamedTuple):
    """Where a peer is found, and what it can be asked for at all."""

    target: str  # module:class; the class takes no arguments and is a `Peer`
    steps: tuple[str, ...]
    gpu_only: bool = False
    packages: tuple[str, ...] = ()  # that it needs beside torch; the extra that brings them is called like the peer


PEERS: dict[str, Row] = {
    "reference": Row("bench.peers.ours:Reference", tuple(step for step in KINDS if step != "training")),
    "optimized": Row("bench.peers.ours:Optimized", ALL),
    "optimized.compiled": Row("bench.peers.ours:OptimizedCompiled", ONE_CALL),
    "torch.eager": Row("bench.peers.torch_modules:Eager", tuple(step for step in KINDS if step != "positional_encoding")),
    "torch.fastpath": Row("bench.peers.torch_modules:Fastpath", LAYERS),
    "torch.compiled": Row("bench.peers.torch_modules:Compiled", ONE_CALL),
    "torch.sdpa.math": Row("bench.peers.torch_attention:Math", ("attention",)),
    "torch.sdpa.flash": Row("bench.peers.torch_attention:Flash", ("attention",)),
    "torch.sdpa.efficient": Row("bench.peers.torch_attention:Efficient", ("attention",), gpu_only=True),
    "torch.sdpa.cudnn": Row("bench.peers.torch_attention:Cudnn", ("attention",), gpu_only=True),
    "onnxruntime": Row("bench.peers.onnx_runtime:OnnxRuntime", GRAPHS, packages=("onnx", "onnxruntime")),
    "openvino": Row("bench.peers.open_vino:OpenVino", GRAPHS, packages=("onnx", "openvino")),
    "jax": Row("bench.peers.jax_functions:Jax", GRAPHS, packages=("jax",)),
    "transformers": Row(
        "bench.peers.hugging_face:Transformers",
        ("multi_head", "encoder_layer", "decoder_layer", "transformer", "generation"),
        packages=("transformers",),
    ),
    "ctranslate2": Row("bench.peers.c_translate:CTranslate2", ("generation",), packages=("ctranslate2",)),
}

USUAL = tuple(name for name in PEERS if "compiled" not in name)
"""Those timed unless others are asked for: compilation takes a minute a cell."""

DEFAULT_BASELINE = "torch.eager"
AGAIN = " again"  # behind the name of the baseline when it is entered a second time, as the control


class Peer(Protocol):
    """Somebody to be timed."""

    name: str

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """Convert everything, outside the clock. Raises NotOffered for what it cannot do, ImportError for what is not installed."""
        ...


@cache
def peer(name: str) -> Peer:
    """The peer of that name. Raises ImportError, in a sequence, when a package it needs is not installed."""
    if ":" in name:
        from bench.peers.ours import Candidate

        return Candidate(name)
    if reason := absence(name):
        raise ImportError(reason)
    module, _, attribute = PEERS[name].target.partition(":")
    make: Callable[[], Peer] = getattr(import_module(module), attribute)
    return make()


def absence(name: str) -> str:
    """Why a built-in peer cannot be had here, in a sequence; "" if its packages are installed."""
    here = all(find_spec(package) for package in PEERS[name].packages)
    return "" if here else f"{name} is not installed: the extra `{name}` of veriformer brings it"


def could(name: str, step: str, device: str, as_step: str | None = None) -> bool:
    """Whether a peer may be asked for a step on a device at all; a user's own is asked for `as_step`, or for every one."""
    if ":" in name:
        return as_step in {None, step}
    row = PEERS[name]
    return step in row.steps and (device != "cpu" or not row.gpu_only)


def check_names(names: Iterable[str], option: str = "--peers") -> None:
    """Raise ValueError for a name that is neither built in nor `module:name`."""
    for name in names:
        if name not in PEERS and ":" not in name:
            close = difflib.get_close_matches(name, PEERS, n=3, cutoff=0.4) or list(PEERS)
            raise ValueError(f"{option}: no peer called {name!r}; did you mean {', '.join(close)}? (your own: module:name)")


def tensors(value: Any, dtype: str, device: str) -> Any:
    """Nested NumPy arguments as torch tensors: float64 arrays in `dtype`, others in their own; new memory for each call."""
    if isinstance(value, dict):
        return {name: tensors(part, dtype, device) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(tensors(part, dtype, device) for part in value)
    if not hasattr(value, "dtype"):
        return value
    tensor = torch.from_numpy(value)
    return tensor.to(device, DTYPES[dtype] if tensor.is_floating_point() else tensor.dtype, copy=True)
