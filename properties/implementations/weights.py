"""Weights, wherever they come from and wherever they go: the only place that knows both columns' parameters.

In the middle stand nested dicts whose keys are the dataclasses' field names (a list per stack of layers, None for what is
absent), as the steps of `properties.steps` take them. Around it: the dataclasses of `reference` and of `optimized`, safetensors
files (never pickle), and the state dicts of `torch.nn.Transformer`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import optimized.parameters
import reference.parameters

Nested = dict[str, Any]

FORMAT = "veriformer transformer 1"
KINDS = {
    "encoder": "EncoderLayerParameters",
    "decoder": "DecoderLayerParameters",
    "self_attention": "MultiHeadParameters",
    "cross_attention": "MultiHeadParameters",
    "feed_forward": "FeedForwardParameters",
    **dict.fromkeys(("norm_1", "norm_2", "norm_3", "encoder_norm", "decoder_norm"), "NormParameters"),
}
"""Which dataclass a field holds; a field that is not named here is an array."""

SHAPES = {
    "source_embedding": ("source_vocab", "d_model"),
    "target_embedding": ("vocab", "d_model"),
    "W_out": ("d_model", "vocab"),
    "b_out": ("vocab",),
    **dict.fromkeys(("W_Q", "W_K"), ("d_model", "h·d_k")),
    **dict.fromkeys(("b_Q", "b_K"), ("h·d_k",)),
    "W_V": ("d_model", "h·d_v"),
    "b_V": ("h·d_v",),
    "W_O": ("h·d_v", "d_model"),
    **dict.fromkeys(("b_O", "gain", "bias", "b_2"), ("d_model",)),
    "W_1": ("d_model", "d_ff"),
    "b_1": ("d_ff",),
    "W_2": ("d_ff", "d_model"),
}
"""The axes of every array. The features and the dictionaries are the same throughout, other axes in one part of a layer."""

THROUGHOUT = {"d_model", "vocab", "source_vocab"}


# Dataclasses ----------------------------------------------------------------------------------------------------------


def nested(parameters: Any) -> Any:
    """Either column's dataclasses as nested dicts of the same arrays."""
    if is_dataclass(parameters):
        return {field.name: nested(getattr(parameters, field.name)) for field in fields(parameters)}
    if isinstance(parameters, (list, tuple)):
        return [nested(part) for part in parameters]
    return {name: nested(part) for name, part in parameters.items()} if isinstance(parameters, dict) else parameters


def built(column: ModuleType, kind: str, parts: Nested) -> Any:
    """The dataclass `kind` of `column` (`reference.parameters` or `optimized.parameters`) from nested dicts, arrays as they are."""

    def part(name: str, value: Any) -> Any:
        if value is None or name not in KINDS:
            return value
        if name in ("encoder", "decoder"):
            return tuple(built(column, KINDS[name], layer) for layer in value)
        return built(column, KINDS[name], value)

    return getattr(column, kind)(**{name: part(name, value) for name, value in parts.items()})


def mapped(change: Callable[[Any], Any], parts: Any) -> Any:
    """Nested dicts with `change` applied to every array."""
    if isinstance(parts, dict):
        return {name: mapped(change, part) for name, part in parts.items()}
    if isinstance(parts, list):
        return [mapped(change, part) for part in parts]
    return None if parts is None else change(parts)


def to_reference(parameters: Any) -> reference.parameters.TransformerParameters:
    """A whole model for the oracle, in float64, from `optimized`'s dataclasses or nested dicts."""
    return built(reference.parameters, "TransformerParameters", mapped(as_float64, nested(parameters)))


def to_optimized(
    parameters: Any, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> optimized.parameters.TransformerParameters:
    """A whole model for the fast implementation, from the oracle's dataclasses or nested dicts."""
    tensors = mapped(lambda array: torch.as_tensor(array).detach().to(device, dtype, copy=True), nested(parameters))
    return built(optimized.parameters, "TransformerParameters", tensors)


def as_float64(array: Any) -> np.ndarray:
    """A copy of any tensor or array as the oracle takes it."""
    if isinstance(array, Tensor):
        return array.detach().to("cpu", torch.float64, copy=True).numpy()
    return np.array(array, dtype=np.float64)


# safetensors ----------------------------------------------------------------------------------------------------------


def save(path: Path | str, parameters: Any, architecture: Any) -> None:
    """Write a whole model (either column's dataclasses or nested dicts) and its `Architecture` to a safetensors file."""
    tensors = {name: torch.as_tensor(array).detach().cpu().contiguous().clone() for name, array in flat(parameters).items()}
    safetensors.torch.save_file(tensors, path, {"format": FORMAT, "architecture": json.dumps(asdict(architecture))})


def load(path: Path | str) -> tuple[Nested, Nested]:
    """Read a model that `save` wrote: nested dicts of tensors in the dtype they were saved in, and the choices of its architecture.

    Raises ValueError, in one line, for a file that is no safetensors file, was not written by `save`, or does not hold the
    arrays of one whole Transformer.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that cannot be read as such ({error})") from error
    if metadata.get("format") != FORMAT:
        names = ", ".join(sorted(tensors)[:3]) or "none"
        raise ValueError(f"{path}: expected weights of the format {FORMAT!r}, got a file of another (its first tensors: {names})")
    try:
        choices = json.loads(metadata["architecture"])
        optimized.parameters.Architecture(**choices)
        check_shapes(tensors)
        parts = _unflattened(tensors)
        built(optimized.parameters, "TransformerParameters", parts)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected the weights of one whole Transformer: {error}") from error
    return parts, choices


def flat(parameters: Any, path: str = "") -> dict[str, Any]:
    """Every array under its dotted name, as the trace of the oracle names things: encoder.0.self_attention.W_Q."""
    parts = nested(parameters)
    if not isinstance(parts, (dict, list)):
        return {} if parts is None else {path: parts}
    items = parts.items() if isinstance(parts, dict) else enumerate(parts)
    return {name: array for key, part in items for name, array in flat(part, f"{path}.{key}" if path else str(key)).items()}


def check_shapes(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError unless every named array is of floating point and their axes fit each other."""
    sizes: dict[str, int] = {}
    for name, array in sorted(arrays.items()):
        part, _, field = name.rpartition(".")
        if field not in SHAPES:
            raise ValueError(f"got {name}, which no Transformer here has")
        if not array.is_floating_point():
            raise ValueError(f"got {name} of {array.dtype}, not of floating point")
        axes = SHAPES[field]
        keys = [axis if axis in THROUGHOUT else f"{part}.{axis}" for axis in axes]
        fits = len(array.shape) == len(axes) and all(
            sizes.setdefault(*item) == item[1] for item in zip(keys, array.shape, strict=True)
        )
        if not fits:
            known = ", ".join(f"{axis} = {sizes[key]}" for axis, key in zip(axes, keys, strict=True) if key in sizes)
            raise ValueError(f"got {name} of shape {tuple(array.shape)}, not ({', '.join(axes)}) with {known}")


def _unflattened(arrays: Mapping[str, Any]) -> Nested:
    """Nested dicts from dotted names; whatever a whole Transformer may lack and these do is None."""
    parts: Nested = {"encoder": [], "decoder": []}
    for name, array in arrays.items():
        *path, field = name.split(".")
        place: Any = parts
        for key in path:
            place = _numbered(place, key, name, arrays) if isinstance(place, list) else place.setdefault(key, {})
            if isinstance(place, Tensor):
                raise TypeError(f"got {name}, and {key} is an array itself")
        place[field] = array
    return parts


def _numbered(layers: list[Nested], key: str, name: str, arrays: Mapping[str, Any]) -> Nested:
    """Layer number `key`, the layers before it being made too. Raises ValueError for one of more layers than there are arrays."""
    if not key.isdecimal() or int(key) >= len(arrays):
        raise ValueError(f"got {name}, where layers are numbered from 0")
    layers.extend({} for _ in range(int(key) + 1 - len(layers)))
    return layers[int(key)]


# torch.nn.Transformer -------------------------------------------------------------------------------------------------

ATTENTIONS = {
    "encoder": {"self_attention": "self_attn"},
    "decoder": {"self_attention": "self_attn", "cross_attention": "multihead_attn"},
}
"""Our name and torch's of the attentions of a layer. torch packs the matrices of Q, K and V into one, and keeps them turned."""


def from_torch(state: Mapping[str, Tensor], **outside: Any) -> Nested:
    """A whole model from the state dict of a `torch.nn.Transformer`; `outside` is what that lacks: embeddings, W_out, b_out.

    Raises ValueError for a state dict of something else.
    """
    try:
        stacks = {stack: [_layer_from(state, stack, i) for i in range(_layers(state, stack))] for stack in ATTENTIONS}
        norms = {f"{stack}_norm": _norm_from(state, f"{stack}.norm") for stack in ATTENTIONS if f"{stack}.norm.weight" in state}
    except KeyError as missing:
        raise ValueError(f"state: expected the state dict of a torch.nn.Transformer, got one without {missing}") from missing
    return {**stacks, **norms, **outside}


def to_torch(parameters: Any) -> dict[str, Tensor]:
    """The state dict of a `torch.nn.Transformer` with biases: embeddings and output projection have no place in it."""
    parts = mapped(torch.as_tensor, nested(parameters))
    state: dict[str, Tensor] = {}
    for stack in ATTENTIONS:
        for i, layer in enumerate(parts[stack]):
            state |= {f"{stack}.layers.{i}.{name}": tensor for name, tensor in _layer_to(layer, stack).items()}
        norm = parts.get(f"{stack}_norm")
        state |= _norm_to(norm, f"{stack}.norm") if norm else {}
    return state


def _layers(state: Mapping[str, Tensor], stack: str) -> int:
    numbers = {int(name.split(".")[2]) for name in state if name.startswith(f"{stack}.layers.")}
    if not numbers:
        raise KeyError(f"{stack}.layers.0")
    return max(numbers) + 1


def _layer_from(state: Mapping[str, Tensor], stack: str, i: int) -> Nested:
    path = f"{stack}.layers.{i}"
    layer: Nested = {ours: _attention_from(state, f"{path}.{theirs}") for ours, theirs in ATTENTIONS[stack].items()}
    layer["feed_forward"] = _feed_forward_from(state, path)
    return layer | {f"norm_{k}": _norm_from(state, f"{path}.norm{k}") for k in range(1, len(ATTENTIONS[stack]) + 2)}


def _attention_from(state: Mapping[str, Tensor], path: str) -> Nested:
    W_Q, W_K, W_V = (W.mT.contiguous() for W in state[f"{path}.in_proj_weight"].chunk(3))
    packed = state.get(f"{path}.in_proj_bias")
    b_Q, b_K, b_V = (None, None, None) if packed is None else packed.chunk(3)
    W_O, b_O = state[f"{path}.out_proj.weight"].mT.contiguous(), state.get(f"{path}.out_proj.bias")
    return {"W_Q": W_Q, "W_K": W_K, "W_V": W_V, "W_O": W_O, "b_Q": b_Q, "b_K": b_K, "b_V": b_V, "b_O": b_O}


def _feed_forward_from(state: Mapping[str, Tensor], path: str) -> Nested:
    W_1, W_2 = (state[f"{path}.linear{k}.weight"].mT.contiguous() for k in (1, 2))
    b_1, b_2 = (state.get(f"{path}.linear{k}.bias", W.new_zeros(W.shape[1])) for k, W in ((1, W_1), (2, W_2)))
    return {"W_1": W_1, "b_1": b_1, "W_2": W_2, "b_2": b_2}


def _norm_from(state: Mapping[str, Tensor], path: str) -> Nested:
    gain = state[f"{path}.weight"]
    return {"gain": gain, "bias": state.get(f"{path}.bias", torch.zeros_like(gain))}


def _layer_to(layer: Nested, stack: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for ours, theirs in ATTENTIONS[stack].items():
        state |= attention_to_torch(layer[ours], theirs)
    forward = layer["feed_forward"]
    state |= {f"linear{k}.weight": forward[f"W_{k}"].mT.contiguous() for k in (1, 2)} | {
        f"linear{k}.bias": forward[f"b_{k}"] for k in (1, 2)
    }
    for k in range(1, len(ATTENTIONS[stack]) + 2):
        state |= _norm_to(layer[f"norm_{k}"], f"norm{k}")
    return state


def attention_to_torch(heads: Nested, path: str) -> dict[str, Tensor]:
    """The entries of a state dict for the `nn.MultiheadAttention` at `path`; a bias that is None becomes zeros."""
    biases = {}
    for k in "QKVO":
        given = heads.get(f"b_{k}")
        biases[k] = heads[f"W_{k}"].new_zeros(heads[f"W_{k}"].shape[1]) if given is None else given
    return {
        f"{path}.in_proj_weight": torch.cat([heads[f"W_{k}"].mT for k in "QKV"]),
        f"{path}.in_proj_bias": torch.cat([biases[k] for k in "QKV"]),
        f"{path}.out_proj.weight": heads["W_O"].mT.contiguous(),
        f"{path}.out_proj.bias": biases["O"],
    }


def _norm_to(norm: Nested, path: str) -> dict[str, Tensor]:
    return {f"{path}.weight": norm["gain"], f"{path}.bias": norm["bias"]}
