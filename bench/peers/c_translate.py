"""CTranslate2 on the same weights: greedy generation only; it has no call for a step or for logits.

Its tokens are strings: turning them into ids is part of its call, as it is for all who use it. It insists on an end token, so that
its vocabulary has one token more than the others', with a logit that never wins.
"""

# A machine without CTranslate2 has nothing to look up.
# pyright: reportMissingImports=false

from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters.utils import fuse_linear
from ctranslate2.specs import TransformerSpec
from ctranslate2.specs.common_spec import Activation, LinearSpec

from bench.peers.base import Built
from bench.workloads import Workload
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

NEVER = -1e9  # a logit
EPSILON = 1e-5
COMPUTED = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8_float32"}


class CTranslate2:
    """CTranslate2's translator on the CPU."""

    name = "ctranslate2"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A translator that generates `length` tokens for each sequence. Raises NotOffered for another step, dtype or device."""
        if workload.step != "generation" or dtype not in COMPUTED or device != "cpu":
            raise NotOffered(f"ctranslate2 is timed in {', '.join(COMPUTED)} on the CPU, on generation")
        if COMPUTED[dtype] not in ctranslate2.get_supported_compute_types("cpu"):
            raise NotOffered(f"ctranslate2 does not compute in {dtype} on this processor")
        given, length = calls[0].kwargs, calls[0].kwargs["length"]
        spec = _spec(given, max(workload.sizes["m"], length))
        with TemporaryDirectory() as folder:
            spec.save(folder)
            translator = ctranslate2.Translator(folder, compute_type=COMPUTED[dtype], intra_threads=torch.get_num_threads())
        options = {"beam_size": 1, "max_input_length": 0, "max_decoding_length": length, "min_decoding_length": length}
        really = f"ctranslate2 {ctranslate2.__version__}, {translator.compute_type}"
        arguments = [([[str(token) for token in sequence] for sequence in call.args[0]],) for call in calls]
        return Built(partial(_generate, translator, options), arguments, really, dtype, caching_allocator=True)


def _generate(translator: Any, options: dict[str, int], source: list[list[str]]) -> np.ndarray:
    return np.array([[int(token) for token in found.hypotheses[0]] for found in translator.translate_batch(source, **options)])


# Its layout: matrices turned, Q, K and V in one, a norm with the sublayer before it -------------------------------------------


def _spec(given: Nested, positions: int) -> Any:
    """The model with so many positions."""
    parameters, start = given["parameters"], str(given["bos"])
    layers = len(parameters["encoder"]), len(parameters["decoder"])
    spec: Any = TransformerSpec.from_config(layers, given["h"], pre_norm=False, activation=Activation.RELU)
    spec.register_source_vocabulary(_embedding(spec.encoder, spec.encoder.embeddings[0], parameters["source_embedding"], positions))
    spec.register_target_vocabulary(_embedding(spec.decoder, spec.decoder.embeddings, parameters["target_embedding"], positions))
    W, b = np.pad(parameters["W_out"], ((0, 0), (0, 1))), np.append(parameters["b_out"], NEVER)
    _linear(spec.decoder.projection, W, b)
    for layer, weights in zip(spec.encoder.layer, parameters["encoder"], strict=True):
        _attention(layer.self_attention, weights["self_attention"], weights["norm_1"], together="QKV")
        _feed_forward(layer.ffn, weights["feed_forward"], weights["norm_2"])
    for layer, weights in zip(spec.decoder.layer, parameters["decoder"], strict=True):
        _attention(layer.self_attention, weights["self_attention"], weights["norm_1"], together="QKV")
        _attention(layer.attention, weights["cross_attention"], weights["norm_2"], together="KV")
        _feed_forward(layer.ffn, weights["feed_forward"], weights["norm_3"])
    spec.config.decoder_start_token = spec.config.bos_token = spec.config.unk_token = start
    spec.config.layer_norm_epsilon = EPSILON
    spec.validate()
    spec.optimize()
    return spec


def _embedding(stack: Any, spec: Any, table: np.ndarray, positions: int) -> list[str]:
    """The vocabulary, end token included."""
    spec.weight = np.pad(table, ((0, 1), (0, 0))).astype(np.float32)
    stack.position_encodings.encodings = oracle("positional_encoding", positions, table.shape[1]).astype(np.float32)
    return [*map(str, range(len(table))), "</s>"]


def _linear(spec: Any, W: np.ndarray, b: np.ndarray) -> Any:
    spec.weight, spec.bias = np.ascontiguousarray(W.T, np.float32), b.astype(np.float32)
    return spec


def _norm(spec: Any, norm: Nested) -> None:
    spec.gamma, spec.beta = norm["gain"].astype(np.float32), norm["bias"].astype(np.float32)


def _attention(spec: Any, heads: Nested, norm: Nested, together: str) -> None:
    """Q, K, V in one product, or Q apart where the keys and values are the memory's."""
    parts = {k: _linear(LinearSpec(), heads[f"W_{k}"], heads[f"b_{k}"]) for k in "QKV"}
    fuse_linear(spec.linear[-2], [parts[k] for k in together])
    if together == "KV":
        fuse_linear(spec.linear[0], [parts["Q"]])
    _linear(spec.linear[-1], heads["W_O"], heads["b_O"])
    _norm(spec.layer_norm, norm)


def _feed_forward(spec: Any, weights: Nested, norm: Nested) -> None:
    _linear(spec.linear_0, weights["W_1"], weights["b_1"])
    _linear(spec.linear_1, weights["W_2"], weights["b_2"])
    _norm(spec.layer_norm, norm)
