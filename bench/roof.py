"""The machine's limits, measured in the same run: what matrix products and memory can do at best, and each cell's share of it.

    least time of a cell = max(flops / product rate, bytes / memory rate)        share = least time / time taken

A limit is the best ever seen, so the best sample counts, over all passes of the run; products are tried through every library
torch has. The product rate is the best of all shapes of its dtype; the memory rate that of the largest working set that is no
larger than the cell's traffic, since less fits a faster cache. A share above 1 is an error of measurement or of a formula.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import quiet
from bench.clock import Clock
from bench.lines import Roof
from bench.workloads import Workload
from properties.implementations.impl import DTYPES

LARGE = ((1024, 1024, 1024),)
WORKING_SETS = tuple(2**power for power in range(18, 29, 2))  # 256 KiB … 256 MiB
SAMPLES = 4
SAMPLE_NS = 3e6
NOISE = 0.03  # a share above 1 by less is two measurements of the same thing

Product = tuple[int, int, int]


class Share(NamedTuple):
    """How close a cell is to the limit that binds it."""

    share: float
    bound: str  # "products" or "memory"
    above: bool


def products(workload: Workload) -> list[Product]:
    """The products (rows, inner, columns) that a workload is made of, of one sequence or one head where those are separate."""
    s, step = workload.sizes, workload.step
    rows = s.get("b", 1) * (1 if step == "generation" else s.get("n", 1))
    heads = [(s["n"], s["d_k"], s["m"]), (s["n"], s["m"], s["d_k"])] if step == "attention" else []
    if "d_model" not in s or step in {"softmax", "residual_norm", "embedding", "positional_encoding"}:
        return heads
    d = s["d_model"]
    whole = {"transformer", "generation", "training"}
    attend = [(rows, d, d)] if step in {"multi_head", "encoder_layer", "decoder_layer", *whole} else []
    think = (
        [(rows, d, s["d_ff"]), (rows, s["d_ff"], d)] if step in {"feed_forward", "encoder_layer", "decoder_layer", *whole} else []
    )
    score = [(rows, d, s["vocab"])] if step in {"output_projection", *whole} else []
    return heads + attend + think + score


def wanted(workloads: Iterable[Workload], dtypes: Sequence[str]) -> dict[str, Any]:
    """What to measure for these workloads, as an order to a worker."""
    shapes = sorted({product for workload in workloads for product in products(workload)} | set(LARGE))
    return {"products": shapes, "dtypes": list(dtypes), "sets": WORKING_SETS}


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


def best_of(lines: Iterable[Roof]) -> list[Roof]:
    """Of several passes over one limit the one with the highest rate."""
    best: dict[str, Roof] = {}
    for line in lines:
        if line.id not in best or line.rate > best[line.id].rate:
            best[line.id] = line
    return list(best.values())


def share(roofs: Iterable[Roof], flops: float, traffic: float, dtype: str, threads: int, ns: float) -> Share | None:
    """The share of a cell of so many flops and bytes that took `ns`; None when its limits were not measured."""
    mine = [roof for roof in roofs if roof.threads == threads]
    rates = [roof.rate for roof in mine if roof.limit == "products" and roof.dtype == dtype]
    memory = [roof for roof in mine if roof.limit in {"read", "copy"}]
    if not rates or not memory:
        return None
    sets = [roof.size["bytes"] for roof in memory]
    fitting = max((size for size in sets if size <= traffic), default=min(sets))
    speeds = [roof.rate for roof in memory if roof.size["bytes"] == fitting]
    least = {"products": flops / max(rates), "memory": traffic / max(speeds)}
    bound = max(least, key=lambda name: least[name])
    found = least[bound] / (ns * 1e-9)
    return Share(found, bound, found > 1 + NOISE)


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
    quiet.wait()
    clock.time(way, [()])
    once, _ = clock.time(way, [()])
    inner = int(np.clip(np.ceil(SAMPLE_NS / once), 1, 1000))
    return [clock.time(way, [()] * inner)[0] for _ in range(SAMPLES)]


def _products(rows: int, inner: int, columns: int, dtype: str, device: str) -> list[Callable[[], Any]]:
    """X W by every library: torch's own choice, with the weights lying as they are and turned, and oneDNN with packed weights."""
    generator = torch.Generator().manual_seed(0)
    X, W = (torch.randn(*shape, generator=generator).to(device, DTYPES[dtype]) for shape in ((rows, inner), (inner, columns)))
    turned = W.mT.contiguous()
    ways: list[Callable[[], Any]] = [lambda: X @ W, lambda: torch.nn.functional.linear(X, turned)]
    packed = _packed(turned, rows) if device == "cpu" and dtype in {"float32", "bfloat16"} else None
    if packed is not None:
        operator = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 (oneDNN's products have no public name)
        ways.append(lambda: operator(X, packed, None, "none", [], ""))
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
