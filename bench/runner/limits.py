"""The machine's limits, measured in the same run: what matrix products and memory can do at best.

A limit is the best ever seen, so the best sample counts. Products are tried through every library torch has, and by the tuned tier.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.runner import settle
from bench.runner.clock import Clock
from optimized import tuned
from optimized.packed import Int8, Int8Panels, Panels
from properties.implementations.impl import DTYPES
from reports.bench_records import Roof

SAMPLES = 4
SAMPLE_NS = 3e6


def measure(wish: dict[str, Any], device: str, threads: int, clock: Clock) -> list[Roof]:
    """One pass over all that was wished for."""
    lines = []
    for dtype in wish["dtypes"]:
        for rows, inner, columns in wish["products"]:
            size = {"rows": rows, "inner": inner, "columns": columns}
            ways = _products(rows, inner, columns, dtype, device)
            lines.append(_best("products", dtype, device, threads, size, 2.0 * rows * inner * columns, ways, clock))
    for count in wish["sets"]:
        size = {"bytes": count}
        lines.append(_best("read", "float32", device, threads, size, count, _reads(count, device), clock))
        lines.append(_best("copy", "float32", device, threads, size, count, _copies(count, device), clock))
    return lines


def _best(
    limit: str,
    dtype: str,
    device: str,
    threads: int,
    size: dict[str, int],
    amount: float,
    ways: list[Callable[[], Any]],
    clock: Clock,
) -> Roof:
    samples = [ns for way in ways for ns in _samples(way, clock)]
    name = "x".join(str(length) for length in size.values())
    rate, median = (amount / (ns * 1e-9) for ns in (min(samples), float(np.median(samples))))
    where = f"{dtype}/{device}/{threads}t/{name}"
    return Roof(f"roof/{limit}/{where}", limit, dtype, device, threads, size, rate, median, [round(ns, 1) for ns in samples])


def _samples(way: Callable[[], Any], clock: Clock) -> list[float]:
    settle.wait()
    clock.time(way, [()])
    once, _ = clock.time(way, [()])
    inner = int(np.clip(np.ceil(SAMPLE_NS / once), 1, 1000))
    return [clock.time(way, [()] * inner)[0] for _ in range(SAMPLES)]


def _products(rows: int, inner: int, columns: int, dtype: str, device: str) -> list[Callable[[], Any]]:
    """X W by every library: torch's own choice, with weights as they are and turned; oneDNN and the tuned tier with packed ones."""
    if dtype == "int8":
        X, W = torch.randn(rows, inner), torch.randn(inner, columns)
        kinds = [Int8] if tuned.missing() or torch.int8 not in tuned.dtypes() else [Int8, Int8Panels]
        return [partial(kind(W, rows).product, X, None) for kind in kinds]
    generator = torch.Generator().manual_seed(0)
    X, W = (torch.randn(*shape, generator=generator).to(device, DTYPES[dtype]) for shape in ((rows, inner), (inner, columns)))
    turned = W.mT.contiguous()
    ways: list[Callable[[], Any]] = [lambda: X @ W, lambda: torch.nn.functional.linear(X, turned)]
    packed = _packed(turned, rows) if device == "cpu" and dtype in {"float32", "bfloat16"} else None
    if packed is not None:
        operator = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 (oneDNN's products have no public name)
        ways.append(lambda: operator(X, packed, None, "none", [], ""))
    if device == "cpu" and DTYPES[dtype] in tuned.dtypes() and not tuned.missing():
        panels = Panels(W, rows)
        ways.append(lambda: panels.product(X, None))
    return ways


def _packed(turned: Tensor, rows: int) -> Tensor | None:
    try:
        return torch.ops.mkldnn._reorder_linear_weight(turned, rows)  # noqa: SLF001 (as above)
    except (AttributeError, RuntimeError):
        return None


def _reads(count: int, device: str) -> list[Callable[[], Any]]:
    """A sum, and a matrix times a vector, which reads as fast as products can."""
    numbers = torch.ones(count // 4, device=device)
    matrix, vector = numbers.view(-1, 256), torch.ones(256, device=device)
    return [numbers.sum, lambda: matrix @ vector]


def _copies(count: int, device: str) -> list[Callable[[], Any]]:
    """Half of the working set onto the other half: what is read and what is written both count."""
    source, target = torch.ones(count // 8, device=device), torch.empty(count // 8, device=device)
    return [lambda: target.copy_(source)]
