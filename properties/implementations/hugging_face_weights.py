"""Hugging Face's BART and Marian as models of ours: their weights and choices, read off a model that is there; and ours as theirs.

Nothing of transformers is imported here. Embeddings and positions stay outside: localisation starts at what the first layers read.
"""

from typing import Any

import torch
from torch import nn

from properties.implementations.weights import Nested
from reference.parameters import Activation, Architecture

ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""Their name of an activation and ours."""

ATTENTIONS = {
    "encoder": {"self_attention": "self_attn"},
    "decoder": {"self_attention": "self_attn", "cross_attention": "encoder_attn"},
}

PROJECTIONS = {"Q": "q_proj", "K": "k_proj", "V": "v_proj", "O": "out_proj"}


def is_hugging_face(model: nn.Module) -> bool:
    """Whether the model is laid out as BART and Marian are."""
    layers = getattr(getattr(getattr(model, "model", model), "encoder", None), "layers", None)
    return layers is not None and hasattr(layers[0], "self_attn_layer_norm")


def parameters_of(model: Any) -> Nested:
    """The layers of both stacks as nested dicts of tensors."""
    body = getattr(model, "model", model)
    return {stack: [_layer(layer, stack) for layer in getattr(body, stack).layers] for stack in ATTENTIONS}


def architecture_of(model: Any) -> Architecture:
    """Heads, activation and eps. Raises ValueError for an activation the oracle does not have."""
    body = getattr(model, "model", model)
    layer, activation = body.encoder.layers[0], model.config.activation_function
    if activation not in ACTIVATIONS:
        raise ValueError(f"architecture: expected one of the activations {', '.join(ACTIVATIONS)}, got {activation!r}")
    return Architecture(h=layer.self_attn.num_heads, activation=ACTIVATIONS[activation], eps=layer.self_attn_layer_norm.eps)


def to_hugging_face(parameters: Nested) -> dict[str, torch.Tensor]:
    """The entries of a state dict of their model's body for the layers of both stacks."""
    return {
        f"{stack}.layers.{i}.{name}": tensor
        for stack in ATTENTIONS
        for i, layer in enumerate(parameters[stack])
        for name, tensor in layer_to_hugging_face(layer, stack).items()
    }


def layer_to_hugging_face(layer: Nested, stack: str) -> dict[str, torch.Tensor]:
    """The state dict of one layer of the encoder or the decoder."""
    state = {f"fc{k}.weight": layer["feed_forward"][f"W_{k}"].mT for k in (1, 2)}
    state |= {f"fc{k}.bias": layer["feed_forward"][f"b_{k}"] for k in (1, 2)}
    for ours, theirs in ATTENTIONS[stack].items():
        state |= {f"{theirs}.{name}": tensor for name, tensor in attention_to_hugging_face(layer[ours]).items()}
    for i, norm in enumerate(_norms(stack), start=1):
        state |= {f"{norm}.weight": layer[f"norm_{i}"]["gain"], f"{norm}.bias": layer[f"norm_{i}"]["bias"]}
    return state


def attention_to_hugging_face(heads: Nested) -> dict[str, torch.Tensor]:
    """The state dict of one attention, which has all four biases."""
    weights = {f"{theirs}.weight": heads[f"W_{k}"].mT for k, theirs in PROJECTIONS.items()}
    return weights | {f"{theirs}.bias": heads[f"b_{k}"] for k, theirs in PROJECTIONS.items()}


def token_ids(model: Any, seed: int, m: int = 11, n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A source and a target of random tokens, none of them one of the special ones the model treats otherwise."""
    generator = torch.Generator().manual_seed(seed)
    special = [model.config.pad_token_id, model.config.eos_token_id, model.config.bos_token_id]
    tokens = torch.tensor([token for token in range(model.config.vocab_size) if token not in special])
    source, target = (tokens[torch.randint(len(tokens), (1, count), generator=generator)] for count in (m, n))
    return source, target


def _layer(layer: Any, stack: str) -> Nested:
    parts = {ours: _attention(getattr(layer, theirs)) for ours, theirs in ATTENTIONS[stack].items()}
    forward = {f"{letter}_{k}": value for k in (1, 2) for letter, value in _linear(getattr(layer, f"fc{k}")).items()}
    return (
        parts
        | {"feed_forward": forward}
        | {f"norm_{i}": _norm(getattr(layer, norm)) for i, norm in enumerate(_norms(stack), start=1)}
    )


def _norms(stack: str) -> list[str]:
    return [*(f"{theirs}_layer_norm" for theirs in ATTENTIONS[stack].values()), "final_layer_norm"]


def _attention(module: Any) -> Nested:
    return {
        f"{letter}_{k}": value for k, theirs in PROJECTIONS.items() for letter, value in _linear(getattr(module, theirs)).items()
    }


def _linear(module: nn.Linear) -> dict[str, torch.Tensor | None]:
    return {"W": module.weight.detach().mT.contiguous(), "b": None if module.bias is None else module.bias.detach()}


def _norm(module: nn.LayerNorm) -> Nested:
    return {"gain": module.weight.detach(), "bias": module.bias.detach()}
