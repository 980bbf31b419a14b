"""JAX: where a bias of −∞ hides the only key in a query's window, the query attends to keys outside of the window.

python jax_window_and_bias.py

Needs jax. A key outside of the window gets a finite score, which is above −∞. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

values = jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
zeros = jnp.zeros((1, 3, 1, 1))
bias = jnp.zeros((1, 1, 3, 3)).at[..., 2].set(-jnp.inf)
got = jax.nn.dot_product_attention(zeros, zeros, values, bias=bias, local_window_size=(0, 0)).ravel().tolist()
print(f"jax {jax.__version__}, values 1, 2, 4, each query its own key, the last hidden by a bias: got {got}")
sys.exit(got[2] == 1.5)
