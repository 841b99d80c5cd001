"""Pooling functions of JAX that compute on a pooling server, gradients included.

from pooling_client.jax import max_pool

pooled = max_pool(x, (3, 3), strides=(2, 2), padding="SAME", server="127.0.0.1:50051")

Signatures and defaults are those of Flax, so the functions also serve as layers of Flax.
Needs the extra ``jax``.
"""

from pooling_client._training.clients import connect
from pooling_client.jax.functions import avg_pool, lp_pool, max_pool, min_pool, sum_pool

__all__ = ["avg_pool", "connect", "lp_pool", "max_pool", "min_pool", "sum_pool"]
