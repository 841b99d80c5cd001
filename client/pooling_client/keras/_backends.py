"""Pooling on the backend of Keras: `pool` computes with PyTorch or JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from pooling_client._training.errors import renamed_errors

_NAMES = {
    "kernel_size": "pool_size",
    "window_shape": "pool_size",
    "kernel": "pool_size",
    "stride": "strides",
    "input": "inputs",
}


def check_backend() -> None:
    """Check the backend of Keras.

    Raises:
        RuntimeError: it is neither PyTorch nor JAX.
    """
    backend = keras.backend.backend()
    if backend not in ("torch", "jax"):
        raise RuntimeError(
            f'the backend of Keras is "{backend}"; pooling_client.keras needs "torch" or "jax": '
            "set the environment variable KERAS_BACKEND before the program starts"
        )


class Layer(NamedTuple):
    """Arguments of a pooling layer.

    Attributes:
        mode: "max", "min" or "avg".
        pool_size: size of a window along each spatial axis.
        strides: step from window to window along each spatial axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        server: target of the server, or None for the default.
    """

    mode: str
    pool_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    data_format: str
    server: str | None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the functions for PyTorch and JAX."""
        counting = {"count_include_pad": False} if self.mode == "avg" else {}
        return {"server": self.server, **counting}


def pool(inputs: Any, layer: Layer) -> Any:
    """Return the pooled tensor, of the same data format.

    Args:
        inputs: tensor of the backend, of shape (N, D1..Dn, C) or, "channels_first", (N, C, D1..Dn).
        layer: the layer.

    Raises:
        ValueError: a size does not fit the tensor.
        PoolingError: the server cannot answer; on the backend JAX, see `pooling_client.jax`.
    """
    compute = _torch if keras.backend.backend() == "torch" else _jax
    with renamed_errors(_NAMES):
        return compute(inputs, layer)


def _torch(inputs: Any, layer: Layer) -> Any:
    from pooling_client.torch import functional

    function = getattr(functional, f"{layer.mode}_pool{len(layer.pool_size)}d")
    padding = "same_upper" if layer.padding == "same" else layer.padding
    arguments = (layer.pool_size, layer.strides, padding)
    if layer.data_format == "channels_first":
        return function(inputs, *arguments, **layer.options)
    return function(inputs.movedim(-1, 1), *arguments, **layer.options).movedim(1, -1)


def _jax(inputs: Any, layer: Layer) -> Any:
    import jax.numpy as jnp

    from pooling_client.jax import functions

    function = getattr(functions, f"{layer.mode}_pool")
    arguments = (layer.pool_size, layer.strides, layer.padding)
    if layer.data_format == "channels_last":
        return function(inputs, *arguments, **layer.options)
    pooled = function(jnp.moveaxis(inputs, 1, -1), *arguments, **layer.options)
    return jnp.moveaxis(pooled, -1, 1)
