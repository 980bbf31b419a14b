"""The oracle, the fast implementation, and whatever a user names."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bench.peers.base import Built
from bench.peers.torch_common import learn, tensors
from bench.workloads import Workload
from optimized import parameters as column
from optimized import tuned
from optimized.attention import attention
from optimized.decoder import decoder_layer
from optimized.embedding import embedding
from optimized.encoder import encoder_layer
from optimized.feed_forward import feed_forward
from optimized.generation import generate
from optimized.mask import causal_mask
from optimized.multi_head import multi_head
from optimized.output_projection import output_projection
from optimized.packing import PACKABLE, Tier, choices, pack
from optimized.parameters import Architecture, FeedForwardParameters, MultiHeadParameters, NormParameters
from optimized.positional_encoding import positional_encoding
from optimized.residual_norm import residual_norm
from optimized.softmax import softmax
from optimized.transformer import transformer
from properties.implementations.impl import DTYPES
from properties.implementations.oracle import oracle
from properties.implementations.patched import Functions
from properties.implementations.weights import built as dataclass_of
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

MOST_FLOPS = 2e10  # of a call of the oracle that is worth waiting for
COMPILER = "torch.compile (inductor)"


class Reference:
    """The oracle, in float64 whatever the others compute in: the anchor that ratios of different runs have in common."""

    name = "reference"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:  # noqa: ARG002 (always the same)
        """The oracle's own arrays. Raises NotOffered for what would take minutes."""
        again = workload.sizes["length"] / 2 if workload.step == "generation" else 1  # it recomputes all tokens for each
        if workload.flops * again > MOST_FLOPS:
            raise NotOffered("one call of the oracle would take minutes")
        call = partial(oracle, workload.step, **calls[0].kwargs)
        return Built(call, [call.args for call in calls], "NumPy, one sequence and one head at a time", "float64")


@dataclass(frozen=True)
class Optimized:
    """The fast implementation; what it takes as parameters is built and packed before the clock starts."""

    name: str
    compiled: bool = False
    tier: Tier = "plain"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A function of the inputs alone, for each step."""
        int8, given = dtype == "int8", "float32" if dtype == "int8" else dtype
        wanted = torch.int8 if int8 else DTYPES[dtype]
        if self.tier == "tuned" and (device != "cpu" or wanted not in tuned.dtypes()):
            raise NotOffered(f"the tuned tier has no products of {dtype} here")
        if self.tier == "tuned" and (why := tuned.missing()):
            raise NotOffered(why)
        packing = Packing(
            workload, self.tier, int8=int8, wanted=not self.compiled and device == "cpu" and DTYPES[given] in PACKABLE
        )
        call = _optimized(workload.step, tensors(calls[0].kwargs, given, device), given, device, packing)
        arguments = [tensors(call.args, given, device) for call in calls]
        if self.compiled:
            return Built(torch.compile(call), arguments, COMPILER, dtype)
        return Built(call, arguments, packing.said, dtype)


class Packing:
    """Lays weights out for the rows of a workload, and says what was chosen and how long that took."""

    def __init__(self, workload: Workload, tier: Tier, *, int8: bool, wanted: bool) -> None:
        sizes = {"n": 1, **workload.sizes}  # to generate is to read a token of each sequence at a time
        self.rows, self.source_rows = sizes.get("b", 1) * sizes["n"], sizes.get("b", 1) * sizes.get("m", sizes["n"])
        self.tier: Tier = tier
        self.int8 = int8
        self.wanted, self.said = wanted, ""

    def __call__(self, parameters: Any) -> Any:
        """The same parameters, packed where that is wanted."""
        if not self.wanted:
            return parameters
        began = time.perf_counter()
        packed = pack(parameters, self.rows, self.source_rows, tier=self.tier, int8=self.int8)
        chosen = "; ".join(map(str, choices(parameters, self.rows, self.source_rows, self.tier, int8=self.int8)))
        self.said = f"laid out in {time.perf_counter() - began:.2g} s: {chosen}"
        return packed


OPTIMIZED, OPTIMIZED_COMPILED = Optimized("optimized"), Optimized("optimized.compiled", compiled=True)
OPTIMIZED_TUNED = Optimized("optimized.tuned", tier="tuned")


class Candidate:
    """A user's own `module:name`: a function of one step's signature, or a class with a method for each (`list steps`)."""

    def __init__(self, target: str) -> None:
        self.name = target
        module, _, path = target.partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        functions = Functions()
        found = import_module(module)
        if replaced := functions.put_back():
            raise RuntimeError(f"{target} replaces {', '.join(replaced)} when it is imported: expected the clock as it was")
        for name in path.split("."):
            found = getattr(found, name)
        self.found: Any = found() if isinstance(found, type) else found

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """Tensors, or float64 arrays for one that says `arrays = "numpy"`. Raises NotOffered for a step it lacks."""
        call = getattr(self.found, workload.step, None) if hasattr(self.found, "steps") else self.found
        if call is None or not callable(call):
            raise NotOffered(f"{self.name} has no {workload.step}")
        if getattr(self.found, "arrays", "torch") == "numpy":
            return Built(partial(call, **calls[0].kwargs), [call.args for call in calls], "", "float64")
        kwargs = tensors(calls[0].kwargs, dtype, device)
        if workload.step == "positional_encoding":
            kwargs["dtype"] = DTYPES[dtype]
        return Built(partial(call, **kwargs), [tensors(call.args, dtype, device) for call in calls], "", dtype)


def _optimized(step: str, given: Nested, dtype: str, device: str, packing: Packing) -> Callable[..., Any]:
    match step:
        case "embedding":
            return partial(embedding, table=given["table"])
        case "positional_encoding":
            return lambda n, d_model: positional_encoding(torch.arange(n, device=device), d_model, DTYPES[dtype])
        case "attention":
            return attention
        case "softmax":
            return softmax
        case "mask":
            return partial(causal_mask, device=torch.device(device))
        case "residual_norm":
            norm = NormParameters(**given)
            return lambda X, Y: residual_norm(X, lambda _: Y, norm)
        case "feed_forward":
            return partial(feed_forward, parameters=packing(FeedForwardParameters(**given)))
        case "output_projection":
            return partial(output_projection, W=packing(given["W"]), b=given["b"])
        case "multi_head":
            h = given.pop("h")
            return partial(multi_head, parameters=packing(MultiHeadParameters(**given)), h=h)
        case _:
            return _optimized_layers(step, given, packing)


def _optimized_layers(step: str, given: Nested, packing: Packing) -> Callable[..., Any]:
    architecture = Architecture(h=given.pop("h"))
    if step in {"encoder_layer", "decoder_layer"}:
        kind, layer = {
            "encoder_layer": ("EncoderLayerParameters", encoder_layer),
            "decoder_layer": ("DecoderLayerParameters", decoder_layer),
        }[step]
        return partial(layer, parameters=packing(dataclass_of(column, kind, given["layer"])), architecture=architecture)
    whole = dataclass_of(column, "TransformerParameters", given.pop("parameters"))
    if step == "generation":
        return partial(generate, parameters=packing(whole), architecture=architecture, **given)
    if step == "transformer":
        return partial(transformer, parameters=packing(whole), architecture=architecture)
    weights = column.map_tensors(lambda W: W.requires_grad_(), whole)
    forward = partial(transformer, parameters=weights, architecture=architecture)
    return learn(forward, column.tensors(weights))
