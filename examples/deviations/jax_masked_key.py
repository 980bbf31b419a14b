"""JAX: a masked key gets all of the weight where the only other score is below 0.7 times the lowest finite number.

python jax_masked_key.py

Needs jax. A masked score becomes that number, not −∞. Exits with 1 while the deviation shows.
"""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import sys

import jax
import jax.numpy as jnp

Q, K = jnp.full((1, 1, 1, 1), -3e38), jnp.array([1.0, 0.0]).reshape(1, 2, 1, 1)
V, mask = jnp.array([1.0, 2.0]).reshape(1, 2, 1, 1), jnp.array([[[[True, False]]]])
found = jax.nn.dot_product_attention(Q, K, V, mask=mask, scale=1.0).item()
print(f"jax {jax.__version__}, scores −3e38 and, masked, 0: expected 1.0, got {found}")
sys.exit(int(found != 1.0))
