"""Listen to a model while it runs: what its modules read and wrote, under the names the oracle's trace gives those matrices.

A name map says where a matrix can be recorded: {"encoder.0.self_attention.output": "layers.0.attn"} is what that module returned,
"layers.0.attn.proj:input" what it was given. `names_of` knows the maps of torch's and Hugging Face's encoder-decoder models.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from properties.implementations.hugging_face_weights import is_hugging_face

Names = Mapping[str, str]  # name in the oracle's trace → "module.path" (its output) or "module.path:input"
Intermediates = dict[str, np.ndarray]  # name in the oracle's trace → what was recorded, float64, one sequence


def record_intermediates(
    model: nn.Module, call: Callable[[], Any], names: Names, *, row: int = 0, batch_axis: int = 0
) -> Intermediates:
    """Run `call`, which runs `model` once, and give sequence `row` of every matrix in `names` that was recorded.

    Raises ValueError for a module the model does not have, and where nothing was recorded at all.
    """
    recorded: dict[str, torch.Tensor] = {}

    def keep(name: str, matrix: torch.Tensor) -> None:
        recorded[name] = matrix.detach().clone()  # before a later step may write into it

    with torch.no_grad(), _hooked(model, names, keep):
        call()
    _must_have_recorded(recorded, names)
    return {name: _sequence(name, tensor, row, batch_axis) for name, tensor in recorded.items()}


def record_gradients(
    model: nn.Module, call: Callable[[], Any], names: Names, *, batch_axis: int = 0, seed: int = 0
) -> tuple[Intermediates, Intermediates]:
    """Run `call` on a batch of one sequence and differentiate Σ direction ∘ result: values, and the gradients that they got.

    The directions are numbers that every dtype has. The gradients of the parameters are left in `model`. Raises ValueError as
    `record_intermediates` does, for a result that carries no gradient, and for a batch of several sequences: their gradients are
    added up in the weights.
    """
    values: dict[str, torch.Tensor] = {}
    told: dict[str, torch.Tensor] = {}

    def keep(name: str, matrix: torch.Tensor) -> None:
        values[name] = matrix.detach().clone()
        if matrix.requires_grad:
            matrix.retain_grad()
            told[name] = matrix

    with torch.enable_grad(), _hooked(model, names, keep):
        model.zero_grad(set_to_none=True)
        result = call()
        result = result if isinstance(result, torch.Tensor) else result[0]
        if not isinstance(result, torch.Tensor) or not result.requires_grad:
            raise ValueError(f"model: expected a result that can be differentiated, got {type(result).__name__} without a gradient")
        _must_have_recorded(values, names)
        if result.ndim == 3 and result.shape[batch_axis] != 1:
            raise ValueError(f"inputs: expected a batch of one sequence, got {result.shape[batch_axis]}")
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randint(-16, 17, result.shape, generator=generator) / 16
        result.backward(direction.to(result.device, result.dtype))
    gradients = {name: matrix.grad for name, matrix in told.items() if matrix.grad is not None}
    of_values, of_gradients = (
        {name: _sequence(name, matrix, 0, batch_axis) for name, matrix in each.items()} for each in (values, gradients)
    )
    return of_values, of_gradients


@contextmanager
def _hooked(model: nn.Module, names: Names, keep: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """While this lasts `keep` is told what the modules read and write, by name. Raises ValueError for an unknown module."""
    modules = dict(model.named_modules())
    handles = []
    try:
        for name, place in names.items():
            path, _, port = place.partition(":")
            if path not in modules:
                raise ValueError(f"names: {name} is to be recorded at {path!r}, and {type(model).__name__} has no such module")
            if port not in ("", "input", "output"):
                raise ValueError(f"names: {name}: expected 'module' or 'module:input', got {place!r}")
            hook = _hook(name, keep, given=port == "input")
            handles.append(modules[path].register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _must_have_recorded(recorded: dict[str, torch.Tensor], names: Names) -> None:
    if not recorded:
        raise ValueError(f"names: the call ran none of the modules {', '.join(list(names.values())[:3])}, …: nothing was recorded")


def _hook(name: str, keep: Callable[[str, torch.Tensor], None], *, given: bool) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        value = (args[0] if args else next(iter(kwargs.values()))) if given else output
        value = value[0] if isinstance(value, tuple) else value
        if isinstance(value, torch.Tensor):
            keep(name, value)

    return hook


def _sequence(name: str, tensor: torch.Tensor, row: int, batch_axis: int) -> np.ndarray:
    values = tensor.detach().to("cpu", torch.float64).numpy()
    if values.ndim == 2:
        return values
    if values.ndim != 3:
        raise ValueError(f"intermediate {name}: expected (batch, tokens, features), got shape {values.shape}")
    return values.take(row, axis=batch_axis)


def names_of(model: nn.Module) -> dict[str, str]:
    """The name map of a model of a known kind. Raises ValueError for another: a map of one's own is then needed."""
    if isinstance(model, nn.Transformer):
        return torch_names(model)
    if is_hugging_face(model):
        return hugging_face_names(model)
    raise ValueError(
        f"names: {type(model).__name__} is no nn.Transformer and no BART or Marian model; "
        'give a map like {"encoder.0.self_attention.output": "my.attention.module"}'
    )


def torch_names(model: nn.Transformer) -> dict[str, str]:
    """Where `nn.Transformer` has modules to hook; its attentions keep Q, K, V and the heads to themselves."""
    names = {"source.input": "encoder.layers.0:input", "target.input": "decoder.layers.0:input"}
    for stack, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "multihead_attn"))):
        layers = getattr(model, stack).layers
        for i, layer in enumerate(layers):
            here, there = f"{stack}.{i}", f"{stack}.layers.{i}"
            ours = dict(zip(attentions, ("self_attention", "cross_attention"), strict=False))
            names |= {f"{here}.{our}.output": f"{there}.{their}" for their, our in ours.items()}
            names |= _feed_forward_names(here, there, "linear1", "linear2")
            norms = [f"{there}.norm{k + 1}" for k in range(len(attentions) + 1)]
            names |= _norm_names(here, norms, pre=layer.norm_first, next_layer=_after(model, stack, i))
    names |= {f"{stack}.final_norm": f"{stack}.norm" for stack in ("encoder", "decoder") if getattr(model, stack).norm is not None}
    return names


def _after(model: nn.Transformer, stack: str, i: int) -> str | None:
    """The norm that reads what layer i of a pre-norm stack wrote, where there is one."""
    if i + 1 < len(getattr(model, stack).layers):
        return f"{stack}.layers.{i + 1}.norm1"
    return f"{stack}.norm" if getattr(model, stack).norm is not None else None


def _feed_forward_names(here: str, there: str, first: str, second: str) -> dict[str, str]:
    return {
        f"{here}.feed_forward.preactivation": f"{there}.{first}",
        f"{here}.feed_forward.hidden": f"{there}.{second}:input",
        f"{here}.feed_forward.output": f"{there}.{second}",
    }


def _norm_names(here: str, norms: list[str], *, pre: bool, next_layer: str | None) -> dict[str, str]:
    """Post-norm: a norm reads the residual sum. Pre-norm: the sum is what the next norm reads."""
    names = {f"{here}.add_norm_{k + 1}.norm": norm for k, norm in enumerate(norms)}
    readers = [*norms[1:], next_layer] if pre else norms
    return names | {f"{here}.add_norm_{k + 1}.residual": f"{norm}:input" for k, norm in enumerate(readers) if norm is not None}


def hugging_face_names(model: nn.Module) -> dict[str, str]:
    """Where BART and Marian (post-norm) have modules to hook: every projection of theirs is a module."""
    root = "model." if hasattr(model, "model") else ""
    body: Any = getattr(model, "model", model)
    names = {f"{side}.input": f"{root}{stack}.layers.0:input" for side, stack in (("source", "encoder"), ("target", "decoder"))}
    for stack in ("encoder", "decoder"):
        for i in range(len(getattr(body, stack).layers)):
            here, there = f"{stack}.{i}", f"{root}{stack}.layers.{i}"
            attentions = {"self_attention": "self_attn"} | ({"cross_attention": "encoder_attn"} if stack == "decoder" else {})
            for our, their in attentions.items():
                names |= {f"{here}.{our}.{letter.upper()}": f"{there}.{their}.{letter}_proj" for letter in "qkv"}
                names |= {
                    f"{here}.{our}.concat": f"{there}.{their}.out_proj:input",
                    f"{here}.{our}.output": f"{there}.{their}.out_proj",
                }
            names |= _feed_forward_names(here, there, "fc1", "fc2")
            norms = [f"{there}.{their}_layer_norm" for their in attentions.values()] + [f"{there}.final_layer_norm"]
            names |= _norm_names(here, norms, pre=False, next_layer=None)
    return names
