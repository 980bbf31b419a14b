"""`veriformer.localize`: the first step at which a model goes wrong, from what its modules are recorded to compute.

The model runs in this process, not in one of its own: what is asked here is where, not whether.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from properties.implementations import hugging_face_weights
from properties.implementations.impl import Impl
from properties.implementations.weights import as_float64, from_torch, mapped, nested
from properties.localize.backward import Recorded, localize_backward
from properties.localize.hooks import Names, names_of, record_gradients, record_intermediates
from properties.localize.localize import Case, Finding, explained
from properties.localize.localize import localize as judged
from properties.localize.step_by_step import chained
from properties.localize.weight_loading import hypotheses as misloaded_hypotheses
from reference.parameters import Architecture


def localize(
    model: nn.Module,
    *inputs: torch.Tensor,
    parameters: Any = None,
    architecture: Architecture | None = None,
    names: Names | None = None,
    call: Callable[[], Any] | None = None,
    row: int = 0,
    seed: int = 0,
    contract: Any = None,
    backward: bool = False,
) -> Finding:
    """Run `model` once and say at which step, layer, head and row it first leaves its budget; falsy where it does.

    With `backward` it is differentiated, and the gradient of each matrix and each weight is judged, from the end to the beginning.

    inputs        what the model is called with; none: random features for `torch.nn.Transformer`, random tokens for BART and Marian
    parameters    what it was meant to compute with: nested dicts, or either column's dataclasses. None: its own state
    architecture  heads, norm, activation, eps; None: read from the model
    names         where its matrices are recorded: {"encoder.0.self_attention.output": "my.module"}; None: of a known kind
    call          runs the model once, where `model(*inputs)` does not do
    row           the sequence of the batch that is looked at; backward the batch is one sequence

    Raises ValueError for a model of an unknown kind without names and parameters, for intermediates that do not fit the oracle, and
    backward for a model without a gradient and for a batch of several sequences.
    """
    names = names_of(model) if names is None else names
    if parameters is None:
        parameters = _own_parameters(model)
    parameters = mapped(as_float64, nested(parameters))
    architecture = _own_architecture(model) if architecture is None else architecture
    first = next(model.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    batch_first = getattr(model, "batch_first", True)
    if backward:
        inputs = tuple(each.detach().requires_grad_() if each.is_floating_point() else each for each in inputs)
    call = call or _default_call(model, inputs, dtype, seed)
    if backward:
        values, gradients = record_gradients(model, call, names, batch_axis=0 if batch_first else 1, seed=seed)
        recorded = Recorded(values, gradients, _gradients_of_parameters(model))
        dtype_name = str(dtype).removeprefix("torch.")
        return localize_backward(recorded, parameters, architecture, dtype=dtype_name, contract=contract)
    intermediates = record_intermediates(model, call, names, row=row, batch_axis=0 if batch_first else 1)
    case, options = Case(parameters, architecture), {"contract": contract}
    finding = judged(case, intermediates, dtype=str(dtype).removeprefix("torch."), **options)
    return explained(finding, case, intermediates, misloaded_hypotheses, **options)


def localize_steps(impl: Impl, case: Case) -> Finding:
    """The same for an implementation that offers single steps: a whole model is run from them."""
    intermediates = chained(impl, case)
    finding = judged(case, intermediates, dtype=impl.dtype)
    return explained(finding, case, intermediates, misloaded_hypotheses)


def _own_parameters(model: nn.Module) -> Any:
    if isinstance(model, nn.Transformer):
        return from_torch(model.state_dict())
    if hugging_face_weights.is_hugging_face(model):
        return hugging_face_weights.parameters_of(model)
    raise ValueError(f"parameters: expected the weights {type(model).__name__} computes with as nested dicts, got none")


def _gradients_of_parameters(model: nn.Module) -> Any:
    """Nested as the parameters are; None for a model whose weights are not laid out as `nn.Transformer`'s."""
    if not isinstance(model, nn.Transformer):
        return None
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    return mapped(as_float64, nested(from_torch(gradients)))


def _own_architecture(model: nn.Module) -> Architecture:
    if hugging_face_weights.is_hugging_face(model):
        return hugging_face_weights.architecture_of(model)
    if not isinstance(model, nn.Transformer):
        raise ValueError(  # noqa: TRY004 (an argument is missing)
            f"architecture: expected an Architecture (heads, norm, activation, eps) for {type(model).__name__}, got none"
        )
    layer: Any = model.encoder.layers[0]
    activation = {torch.nn.functional.relu: "relu", torch.nn.functional.gelu: "gelu"}.get(layer.activation)
    if activation is None:
        raise ValueError(
            f"architecture: expected an activation relu or gelu, got {layer.activation!r}; pass architecture= yourself"
        )
    return Architecture(h=model.nhead, norm="pre" if layer.norm_first else "post", activation=activation, eps=layer.norm1.eps)  # type: ignore[arg-type]


def _default_call(model: nn.Module, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype, seed: int) -> Callable[[], Any]:
    if hugging_face_weights.is_hugging_face(model):
        source, target = inputs or hugging_face_weights.token_ids(model, seed)
        return lambda: model(input_ids=source, decoder_input_ids=target, use_cache=False)
    if not isinstance(model, nn.Transformer):
        return lambda: model(*inputs)
    model_width, batch_first = model.d_model, model.batch_first
    if not inputs:
        generator = torch.Generator().manual_seed(seed)
        words = [(1, n, model_width) if batch_first else (n, 1, model_width) for n in (11, 8)]
        device = next(model.parameters()).device
        inputs = tuple(torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in words)
    if len(inputs) != 2:
        raise ValueError(f"inputs: expected a source and a target of features, got {len(inputs)}")
    n = inputs[1].shape[1 if batch_first else 0]
    ahead = torch.triu(torch.ones(n, n, dtype=torch.bool, device=inputs[1].device), diagonal=1)
    return lambda: model(*inputs, tgt_mask=ahead)
