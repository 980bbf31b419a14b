"""Hugging Face's Marian on the same weights: its attention, its layers, the whole model, and `generate` with its cache.

Marian is the post-norm Transformer of the article but for one thing: its table of positions has all sines before all cosines.
The table is a weight like any other, so it is given the article's. Training is not offered: Marian's bias of the logits is none
of its parameters, so that it would learn less than the others.
"""

# A machine without transformers has nothing to look up.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.marian.modeling_marian import MarianAttention, MarianDecoderLayer, MarianEncoderLayer

from bench.peers.base import Built
from bench.peers.torch_common import tensors
from bench.step import Sizes
from bench.workloads import Workload
from properties.implementations.hugging_face_weights import attention_to_hugging_face, layer_to_hugging_face, to_hugging_face
from properties.implementations.impl import DTYPES
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

ATTENTION = "sdpa"  # its own choice too; without a mask a decoder layer of its is causal with this one only
OFFERED = ("multi_head", "encoder_layer", "decoder_layer", "transformer", "generation")

Made = tuple[nn.Module, dict[str, Tensor], Callable[..., Tensor]]  # a module, its weights, a function of the inputs alone


class Transformers:
    """The package `transformers`: Marian, in evaluation."""

    name = "transformers"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A module of Marian's that holds our weights. Raises NotOffered for a step that it has no module for."""
        if workload.step not in OFFERED:
            raise NotOffered(f"transformers is timed on {', '.join(OFFERED)}")
        given = tensors(calls[0].kwargs, dtype, device)
        make = _whole if "parameters" in given else _part
        module, state, call = make(workload.step, given, workload.sizes)
        module.to(device, DTYPES[dtype]).load_state_dict(state)
        module.eval().requires_grad_(requires_grad=False)
        really = f"transformers {transformers.__version__}, Marian with {ATTENTION} attention"
        return Built(call, [tensors(call.args, dtype, device) for call in calls], really, dtype)


def _part(step: str, given: Nested, sizes: Sizes) -> Made:
    """Its attention, or one of its layers."""
    if step == "multi_head":
        attention = MarianAttention(sizes["d_model"], sizes["h"], config=_config(sizes))
        return attention, attention_to_hugging_face(given), lambda X, M: attention(X, key_value_states=M)[0]
    if step == "encoder_layer":
        encoder_layer = MarianEncoderLayer(_config(sizes))
        return encoder_layer, layer_to_hugging_face(given["layer"], "encoder"), lambda X: encoder_layer(X, None)
    decoder_layer = MarianDecoderLayer(_config(sizes), layer_idx=0)
    return decoder_layer, layer_to_hugging_face(given["layer"], "decoder"), lambda X, M: decoder_layer(X, None, M)


def _whole(step: str, given: Nested, sizes: Sizes) -> Made:
    """The whole model: its logits, or what it generates."""
    parameters = given["parameters"]
    positions_count = max(sizes.get(size, 0) for size in ("n", "m", "length"))
    model: Any = transformers.MarianMTModel(_config(sizes, positions_count))
    positions = torch.from_numpy(oracle("positional_encoding", positions_count, sizes["d_model"]))
    state = {f"model.{name}": tensor for name, tensor in to_hugging_face(parameters).items()}
    for stack, side in {"encoder": "source", "decoder": "target"}.items():
        state[f"model.{stack}.embed_tokens.weight"] = parameters[f"{side}_embedding"]
        state[f"model.{stack}.embed_positions.weight"] = positions
    state |= {"lm_head.weight": parameters["W_out"].mT, "final_logits_bias": parameters["b_out"][None]}
    if step == "transformer":
        return model, state, lambda source, target: model(source, decoder_input_ids=target, use_cache=False).logits
    start = given["bos"]
    greedy = transformers.GenerationConfig(max_new_tokens=given["length"], decoder_start_token_id=start, pad_token_id=start)

    def generate(source: Tensor) -> Any:
        # told that no token is padding, or it would take every start token in the source for one
        return model.generate(source, attention_mask=torch.ones_like(source), generation_config=greedy)[:, 1:]

    return model, state, generate


def _config(sizes: Sizes, positions: int = 1) -> Any:
    """Of a model of these sizes with so many positions, and no end token."""
    both = {"attention_heads": sizes["h"], "ffn_dim": sizes["d_ff"], "layers": sizes["layers"]}
    options: dict[str, Any] = {f"{stack}_{size}": value for stack in ("encoder", "decoder") for size, value in both.items()}
    options |= {"d_model": sizes["d_model"], "vocab_size": sizes["vocab"], "max_position_embeddings": positions}
    options |= {"activation_function": "relu", "dropout": 0.0, "scale_embedding": True, "attn_implementation": ATTENTION}
    options |= {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    options |= {"pad_token_id": 0, "eos_token_id": None, "forced_eos_token_id": None}
    return transformers.MarianConfig(**options)
