"""What comes back from a candidate, described.

Stands alone (standard library, numpy, torch where it is imported): the candidate's process loads this file by its path.
"""

import sys
from typing import Any

import numpy as np


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def described(result: Any) -> dict[str, Any]:
    """A result as a message: what it is, and its values as float64, bool or int64 (None where those cannot hold them)."""
    kind_of_type = f"{type(result).__module__}.{type(result).__qualname__}".removeprefix("builtins.")
    if _is_tensor(result):
        values, dtype = result.detach().cpu(), str(result.dtype).removeprefix("torch.")
        values = values.double() if values.is_floating_point() else values
        return _array_answer("tensor", "torch.Tensor", dtype, values.resolve_conj().numpy())
    if isinstance(result, np.ndarray):
        return _array_answer("array", "numpy.ndarray", result.dtype.name, np.asarray(result))
    if isinstance(result, dict):
        return {"kind": "nested", "type": kind_of_type, "items": {str(key): described(item) for key, item in result.items()}}
    if isinstance(result, list | tuple):
        return {"kind": "nested", "type": kind_of_type, "items": [described(item) for item in result]}
    if isinstance(result, str | int):
        return {"kind": "plain", "type": kind_of_type, "value": result}
    return {"kind": "other", "type": kind_of_type}


def _array_answer(kind: str, type_name: str, dtype: str, values: np.ndarray) -> dict[str, Any]:
    wide = {"f": np.float64, "b": np.bool_, "i": np.int64, "u": np.int64}.get(values.dtype.kind)
    held = None if wide is None else values.astype(wide)
    return {"kind": kind, "type": type_name, "dtype": dtype, "shape": list(values.shape), "values": held}
