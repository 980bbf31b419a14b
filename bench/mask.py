"""The causal mask. Nothing is read."""

from bench.step import Step

STEP = Step(
    name="mask",
    claim="M1",
    workloads={"mask.512": {"n": 512, "m": 512}},
    elements=lambda s: s["n"] * s["m"],
    inputs=lambda _, s: (s["n"], s["m"]),
    boolean=True,
)
