"""JAX on the same weights: the steps as its users write them, each compiled whole by XLA on the first call.

JAX has an attention of its own, jax.nn.dot_product_attention, and no other step of the article. A call ends when its result is
there, not when it is promised. Weights are arguments: as constants XLA would compute with them while it compiles.
"""

# A machine without JAX has nothing to look up.
# pyright: reportMissingImports=false

import math
import os
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from bench.peers.base import Built
from bench.workloads import Workload
from properties.implementations.oracle import oracle
from properties.implementations.weights import mapped
from properties.inputs.parameters import Call, Nested
from properties.verdicts import NotOffered

Step = Callable[..., Array]  # (h, weights, *inputs) → output

EPSILON = 1e-5
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# read once, when the first array is made: XLA takes as many threads as it believes there are cores
os.environ["PJRT_NPROC"] = str(torch.get_num_threads())
jax.config.update("jax_platforms", "cpu")


class Jax:
    """JAX, float32 and bfloat16 on the CPU."""

    name = "jax"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A function that its first call compiles for these sizes. Raises NotOffered for another step, dtype or device."""
        if dtype not in DTYPES or device != "cpu" or workload.step not in STEPS:
            raise NotOffered(f"jax is timed in {' and '.join(DTYPES)} on the CPU, on {', '.join(STEPS)}")
        given = dict(calls[0].kwargs)
        step = jax.jit(partial(STEPS[workload.step], given.pop("h", 1)))
        weights = mapped(partial(_array, dtype=dtype), given)
        arguments = [tuple(_array(a, dtype) for a in call.args) for call in calls]
        really = f"jax {jax.__version__}, compiled by XLA for the CPU, threads: {os.environ['PJRT_NPROC']}"
        return Built(partial(_run, step, weights), arguments, really, dtype)


def _run(step: Step, weights: Nested, *inputs: Array) -> Array:
    return step(weights, *inputs).block_until_ready()


def _array(array: np.ndarray, dtype: str) -> Array:
    return jnp.asarray(array, jnp.int32 if array.dtype.kind == "i" else DTYPES[dtype])


# The steps ------------------------------------------------------------------------------------------------------------


def _attention(_h: int, _: Nested, Q: Array, K: Array, V: Array) -> Array:
    """(b, h, n, d): jax.nn has the heads behind the tokens."""
    Q, K, V = (jnp.swapaxes(of, 1, 2) for of in (Q, K, V))
    return jnp.swapaxes(jax.nn.dot_product_attention(Q, K, V, implementation="xla"), 1, 2)


def _softmax(_h: int, _: Nested, scores: Array) -> Array:
    """In float32, as jax.nn's attention has it too: in bfloat16 x − max alone costs eight times what rounding allows."""
    return jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(scores.dtype)


def _residual_norm(_h: int, norm: Nested, X: Array, Y: Array) -> Array:
    """LayerNorm over the features of X + Y; in float32, since jax.nn.standardize cancels in fewer digits."""
    wide = (X + Y).astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
    return (centred * scale * norm["gain"] + norm["bias"]).astype(X.dtype)


def _feed_forward(_h: int, weights: Nested, X: Array) -> Array:
    return jax.nn.relu(X @ weights["W_1"] + weights["b_1"]) @ weights["W_2"] + weights["b_2"]


def _multi_head(h: int, heads: Nested, X: Array, M: Array, *, causal: bool = False) -> Array:
    Q, K, V = ((of @ heads[f"W_{k}"] + heads[f"b_{k}"]).reshape(*of.shape[:-1], h, -1) for k, of in (("Q", X), ("K", M), ("V", M)))
    found = jax.nn.dot_product_attention(Q, K, V, is_causal=causal, implementation="xla")
    return found.reshape(*X.shape[:-1], -1) @ heads["W_O"] + heads["b_O"]


def _encoder_layer(h: int, given: Nested, X: Array) -> Array:
    layer = given["layer"]
    X = _residual_norm(h, layer["norm_1"], X, _multi_head(h, layer["self_attention"], X, X))
    return _residual_norm(h, layer["norm_2"], X, _feed_forward(h, layer["feed_forward"], X))


def _decoder_layer(h: int, given: Nested, X: Array, M: Array) -> Array:
    layer = given["layer"]
    X = _residual_norm(h, layer["norm_1"], X, _multi_head(h, layer["self_attention"], X, X, causal=True))
    X = _residual_norm(h, layer["norm_2"], X, _multi_head(h, layer["cross_attention"], X, M))
    return _residual_norm(h, layer["norm_3"], X, _feed_forward(h, layer["feed_forward"], X))


def _embed(tokens: Array, table: Array) -> Array:
    """Look up, scale, add positions."""
    positions = _array(oracle("positional_encoding", tokens.shape[1], table.shape[1]), table.dtype.name)
    return table[tokens] * math.sqrt(table.shape[1]) + positions


def _transformer(h: int, given: Nested, source: Array, target: Array) -> Array:
    parameters = given["parameters"]
    M, X = _embed(source, parameters["source_embedding"]), _embed(target, parameters["target_embedding"])
    for layer in parameters["encoder"]:
        M = _encoder_layer(h, {"layer": layer}, M)
    for layer in parameters["decoder"]:
        X = _decoder_layer(h, {"layer": layer}, X, M)
    return X @ parameters["W_out"] + parameters["b_out"]


STEPS: dict[str, Step] = {
    "attention": _attention,
    "softmax": _softmax,
    "residual_norm": _residual_norm,
    "feed_forward": _feed_forward,
    "output_projection": lambda _h, weights, X: X @ weights["W"] + weights["b"],
    "multi_head": _multi_head,
    "encoder_layer": _encoder_layer,
    "decoder_layer": _decoder_layer,
    "transformer": _transformer,
}
