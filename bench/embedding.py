"""Embedding: rows of a table by token id, scaled by √d_model."""

from bench.step import TOKENS, Step

STEP = Step(
    name="embedding",
    claim="E2",
    workloads={"embedding.8x64": TOKENS},
    elements=lambda s: s["b"] * s["n"] * (1 + 2 * s["d_model"]),  # ids, rows read, rows written
    inputs=lambda draw, s: (draw.tokens(s["b"], s["n"], vocab=s["vocab"]),),
    weights=lambda draw, s: {"table": draw.matrix(s["d_model"], s["vocab"]).T.copy()},
)
