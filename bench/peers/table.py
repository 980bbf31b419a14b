"""The peers by name, and how one is found: built in, or a user's own `module:name`."""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from bench.peers.base import Peer
from bench.workloads import STEPS

ALL = (*STEPS,)
PRODUCTS = ("multi_head", "feed_forward", "encoder_layer", "decoder_layer", "output_projection", "transformer", "generation")
LAYERS = ("encoder_layer", "transformer", "generation")
ONE_CALL = tuple(step for step in STEPS if step not in {"generation", "training"})
GRAPHS = tuple(step for step in ONE_CALL if step not in {"embedding", "positional_encoding", "mask"})


class Row(NamedTuple):
    """Where a peer is found, and what it can be asked for at all."""

    target: str  # module:name in this package, of a `Peer` or of a class of one
    steps: tuple[str, ...]
    gpu_only: bool = False
    int8: bool = False  # whether it has products of matrices that are rounded to int8
    packages: tuple[str, ...] = ()  # that it needs beside torch; the extra that brings them is called like the peer


PEERS: dict[str, Row] = {
    "reference": Row("ours:Reference", tuple(step for step in STEPS if step != "training")),
    "optimized": Row("ours:OPTIMIZED", ALL, int8=True),
    "optimized.tuned": Row("ours:OPTIMIZED_TUNED", PRODUCTS, int8=True),
    "optimized.compiled": Row("ours:OPTIMIZED_COMPILED", ONE_CALL),
    "torch.eager": Row("torch_modules:EAGER", tuple(step for step in STEPS if step != "positional_encoding")),
    "torch.fastpath": Row("torch_modules:FASTPATH", LAYERS),
    "torch.compiled": Row("torch_modules:COMPILED", ONE_CALL),
    "torch.sdpa.math": Row("torch_modules:MATH", ("attention",)),
    "torch.sdpa.flash": Row("torch_modules:FLASH", ("attention",)),
    "torch.sdpa.efficient": Row("torch_modules:EFFICIENT", ("attention",), gpu_only=True),
    "torch.sdpa.cudnn": Row("torch_modules:CUDNN", ("attention",), gpu_only=True),
    "onnxruntime": Row("onnx_runtimes:OnnxRuntime", GRAPHS, int8=True, packages=("onnx", "onnxruntime")),
    "openvino": Row("onnx_runtimes:OpenVino", GRAPHS, packages=("onnx", "openvino")),
    "jax": Row("jax_functions:Jax", GRAPHS, packages=("jax",)),
    "transformers": Row(
        "hugging_face:Transformers",
        ("multi_head", "encoder_layer", "decoder_layer", "transformer", "generation"),
        packages=("transformers",),
    ),
    "ctranslate2": Row("c_translate:CTranslate2", ("generation",), int8=True, packages=("ctranslate2",)),
}

USUAL = tuple(name for name in PEERS if "compiled" not in name)
"""The default: without compilation, which takes a minute a cell."""

DEFAULT_BASELINE = "torch.eager"
AGAIN = " again"  # behind the name of the baseline when it is entered a second time, as the control


@cache
def peer(name: str) -> Peer:
    """The peer of that name. Raises ImportError, in one line, when a package it needs is not installed."""
    if ":" in name:
        from bench.peers.ours import Candidate

        return Candidate(name)
    if reason := absence(name):
        raise ImportError(reason)
    module, _, attribute = PEERS[name].target.partition(":")
    found = getattr(import_module(f"bench.peers.{module}"), attribute)
    return found() if isinstance(found, type) else found


def absence(name: str) -> str:
    """Why a built-in peer cannot be used here, in one line; "" if its packages are installed."""
    here = all(find_spec(package) for package in PEERS[name].packages)
    return "" if here else f"{name} is not installed: the extra `{name}` of veriformer brings it"


def could(name: str, step: str, device: str, dtype: str, as_step: str | None = None) -> bool:
    """Whether a peer may be asked for a step at all; a user's own is asked for `as_step`, or for every one, and not for int8."""
    if ":" in name:
        return as_step in {None, step} and dtype != "int8"
    row = PEERS[name]
    if dtype == "int8":
        return row.int8 and step in PRODUCTS and step in row.steps and device == "cpu"
    return step in row.steps and (device != "cpu" or not row.gpu_only)


def check_names(names: Iterable[str], option: str = "--peers") -> None:
    """Raises ValueError for a name that is neither built in nor `module:name`."""
    for name in names:
        if name not in PEERS and ":" not in name:
            close = difflib.get_close_matches(name, PEERS, n=3, cutoff=0.4) or list(PEERS)
            raise ValueError(f"{option}: no peer called {name!r}; did you mean {', '.join(close)}? (your own: module:name)")
