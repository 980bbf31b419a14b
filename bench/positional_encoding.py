"""Positional encoding: sines and cosines of n positions. Nothing is read."""

from bench.step import Step

STEP = Step(
    name="positional_encoding",
    claim="PE1",
    workloads={"positional_encoding.512": {"n": 512, "d_model": 512}},
    elements=lambda s: s["n"] * s["d_model"],
    inputs=lambda _, s: (s["n"], s["d_model"]),
)
