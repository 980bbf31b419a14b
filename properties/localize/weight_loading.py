"""Ways to load weights wrongly, as hypotheses about the step that went wrong: the numbers may be consistent with one of them.

Two matrices exchanged, a matrix turned, a bias or a gain left out, the weights of another layer in place of these.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

Nested = dict[str, Any]


def hypotheses(name: str, parameters: Nested) -> dict[str, Nested]:
    """What may have been loaded in place of `parameters`, given the name of the matrix that first came out wrong.

    The keys say it in words; only the part of the model that this matrix is computed by is changed.
    """
    found: dict[str, Nested] = {}
    for path in _parts(name, parameters):
        part = _at(parameters, path)
        for what, changed in _changed(part):
            found[f"{what.format('.'.join(map(str, path)))}"] = _with(parameters, path, changed)
        found |= _other_layers(parameters, path)
    return found


def _parts(name: str, parameters: Nested) -> Iterator[tuple[str | int, ...]]:
    """The path of the weights behind a matrix: encoder.0.self_attention.Q comes from ("encoder", 0, "self_attention")."""
    stack, *rest = name.split(".")
    if stack not in ("encoder", "decoder"):
        return
    if rest[0] == "final_norm":
        yield (f"{stack}_norm",)
        return
    layer, part = int(rest[0]), rest[1]
    if part.startswith("add_norm_") and rest[2] == "norm":
        yield (stack, layer, part.removeprefix("add_"))
    elif not part.startswith("add_norm_"):
        yield (stack, layer, part)
    else:  # a residual sum: what came before it unheard was the sublayer
        sublayers = [key for key in parameters[stack][layer] if not key.startswith("norm_")]
        yield (stack, layer, sublayers[int(part.removeprefix("add_norm_")) - 1])


def _changed(part: Nested) -> Iterator[tuple[str, Nested]]:
    """`part` with one thing wrong; {} stands for where it is in the model."""
    present = {key: array for key, array in part.items() if array is not None}
    for first, second in combinations(present, 2):
        if part[first].shape == part[second].shape and not np.array_equal(part[first], part[second]):
            yield f"{first} and {second} of {{}} exchanged", {**part, first: part[second], second: part[first]}
    for key, array in present.items():
        if array.ndim == 2 and array.shape[0] == array.shape[1] and not np.array_equal(array, array.T):
            yield f"{key} of {{}} transposed", {**part, key: np.ascontiguousarray(array.T)}
        elif array.ndim == 1 and key != "gain" and array.any():
            yield f"{key} of {{}} missing", {**part, key: np.zeros_like(array)}
        elif key == "gain" and (array != 1).any():
            yield f"{key} of {{}} left at 1", {**part, key: np.ones_like(array)}
    matrices = [key for key, array in present.items() if array.ndim == 2]
    if len(matrices) > 1 and all(part[key].shape[0] == part[key].shape[1] for key in matrices):
        yield "all matrices of {} transposed", {**part, **{key: np.ascontiguousarray(part[key].T) for key in matrices}}


def _other_layers(parameters: Nested, path: tuple[str | int, ...]) -> dict[str, Nested]:
    if len(path) < 3:
        return {}
    stack, own, part = path
    layers = parameters[str(stack)]
    return {
        f"{part} of {stack}.{other} loaded into {stack}.{own}": _with(parameters, path, layer[part])
        for other, layer in enumerate(layers)
        if other != own
    }


def _at(nested: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        nested = nested[key]
    return nested


def _with(nested: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of nested dicts and lists with one part replaced."""
    if not path:
        return value
    key, *rest = path
    copy: Any = list(nested) if isinstance(nested, list) else dict(nested)
    copy[key] = _with(copy[key], tuple(rest), value)
    return copy
