"""Callbacks: NumPy arrays in, one call of the client, NumPy arrays out.

They use nothing of JAX, whose operations can deadlock in a callback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_client import PoolingClient, PoolingError
from pooling_client._training.clients import client_of
from pooling_client._training.errors import renamed_errors
from pooling_client.jax._arguments import NAMES

Array = NDArray[Any]
Callback = Callable[..., Any]


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], PoolingError))


# JAX raises the errors of callbacks, and also logs them.
logging.getLogger("jax._src.callback").addFilter(_is_news)


@dataclass(frozen=True)
class Remote:
    """Callback for one layer. Equal ones compare equal, so JAX compiles a program once.

    Args:
        function: one of the functions of this module.
        layer: the `Layer`.
    """

    function: Callback
    layer: Any

    def __call__(self, *arrays: Any) -> Any:
        """Merge the batch axes of arrays (..., D1..Dn, C), call the server, and split them."""
        rank = len(self.layer.sizes)
        batch = np.shape(arrays[0])[: -1 - rank]
        merged = [np.asarray(each) for each in arrays]
        merged = [each.reshape(-1, *each.shape[-1 - rank :]) for each in merged]
        with renamed_errors(NAMES):
            results = self.function(client_of(self.layer.server), self.layer, *merged)
        if isinstance(results, tuple):
            return tuple(each.reshape(*batch, *each.shape[1:]) for each in results)
        return results.reshape(*batch, *results.shape[1:])


def forward(client: PoolingClient, layer: Any, x: Array) -> Array:
    """Return the pooled array."""
    return client.forward(x, layer.spec).output


def forward_with_indices(client: PoolingClient, layer: Any, x: Array) -> tuple[Array, Array]:
    """Return the pooled array and the window indices."""
    result = client.forward(x, layer.spec, return_indices=True)
    assert result.indices is not None
    return result.output, result.indices


def backward(client: PoolingClient, layer: Any, dy: Array, indices: Array | None = None) -> Array:
    """Return the input gradient, given the window indices for "max" and "min"."""
    shape = (len(dy), *layer.sizes, dy.shape[-1])
    return client.backward(dy, layer.spec, input_shape=shape, indices=indices)


def backward_of_input(client: PoolingClient, layer: Any, dy: Array, x: Array) -> Array:
    """Return the input gradient, given the input."""
    return client.backward(dy, layer.spec, input=x)
