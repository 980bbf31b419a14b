"""The messages between `proxy` and the implementation's process: a JSON text and the bytes of its arrays, never pickled.

Stands alone (standard library and numpy): the implementation's process loads this file by its path.
"""

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

LENGTHS = struct.Struct("!QQ")


def encode(body: Any) -> bytes:
    """One message: nested dicts and lists of plain values and numpy arrays (float64, bool, int64)."""
    arrays: list[np.ndarray] = []
    flat = _without_arrays(body, arrays)
    shapes = [(array.dtype.name, array.shape) for array in arrays]
    text = json.dumps({"body": flat, "arrays": shapes}).encode()
    payload = b"".join(array.tobytes() for array in arrays)
    return LENGTHS.pack(len(text), len(payload)) + text + payload


def receive(read: Callable[[int], bytearray]) -> Any:
    """The next message, from `read(count)`; its arrays are copies that may be written to."""
    text, payload = (read(length) for length in LENGTHS.unpack(read(LENGTHS.size)))
    message = json.loads(text)
    arrays, start = [], 0
    for dtype, shape in message["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(payload, dtype, count, start).reshape(shape).copy())
        start += arrays[-1].nbytes
    return _with_arrays(message["body"], arrays)


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"@array": len(arrays) - 1}
    if isinstance(value, dict):
        return {key: _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        return arrays[value["@array"]] if "@array" in value else {k: _with_arrays(v, arrays) for k, v in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value


def read_exactly(connection: socket.socket, count: int) -> bytearray:
    """`count` bytes of a blocking socket; EOFError when the other side is gone."""
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        new = connection.recv_into(view[got:])
        if not new:
            raise EOFError
        got += new
    return data
