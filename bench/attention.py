"""Attention of every head, from 64 to 8192 tokens."""

from bench.step import Product, Sizes, Step, product

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)


def products(s: Sizes) -> list[Product]:
    """Q Kᵀ and P V."""
    return [(s["n"], s["d_k"], s["m"]), (s["n"], s["m"], s["d_k"])]


def flops(s: Sizes) -> int:
    """Both products, for every head."""
    return s["b"] * s["h"] * sum(product(*shape) for shape in products(s))


STEP = Step(
    name="attention",
    claim="A6",
    workloads={f"attention.{n}": {"b": 1, "h": 8, "n": n, "m": n, "d_k": 64} for n in LENGTHS},
    axis="n",
    flops=flops,
    products=products,
    elements=lambda s: 2 * s["b"] * s["h"] * s["d_k"] * (s["n"] + s["m"]),  # Q and the result, K and V; scores need not be stored
    inputs=lambda draw, s: tuple(draw.normal(s["b"], s["h"], length, s["d_k"]) for length in (s["n"], s["m"], s["m"])),
)
