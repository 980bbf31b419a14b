"""Residual and norm: LayerNorm(X + Y)."""

import numpy as np

from bench.step import TOKENS, Draw, Step, features, features_count
from properties.inputs.parameters import Nested


def weights(draw: Draw, d: int) -> Nested:
    """Gain and bias; the gain is a multiple of 1/128, since bfloat16 has no finer numbers above 1."""
    gain = 1.0 + np.round(draw.normal(d, scale=0.125) * 128) / 128
    return {"gain": gain, "bias": draw.normal(d, scale=0.125)}


STEP = Step(
    name="residual_norm",
    claim="R1",
    workloads={"residual_norm.8x64": TOKENS},
    elements=lambda s: 3 * features_count(s) + 2 * s["d_model"],  # X, Y and the result; gain and bias
    inputs=lambda draw, s: (*features(draw, s), *features(draw, s)),
    weights=lambda draw, s: weights(draw, s["d_model"]),
)
