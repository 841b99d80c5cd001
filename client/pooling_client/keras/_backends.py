"""Pooling on the backend of Keras: `pool` computes with PyTorch or JAX."""

from __future__ import annotations

from typing import Any

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


def pool(
    mode: str,
    inputs: Any,
    pool_size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str,
    data_format: str,
    server: str | None,
) -> Any:
    """Return the pooled tensor, of the same data format.

    Args:
        mode: "max", "min" or "avg".
        inputs: tensor of the backend, of shape (N, D1..Dn, C) or, "channels_first", (N, C, D1..Dn).
        pool_size: size of a window along each spatial axis.
        strides: step from window to window along each spatial axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        server: target of the server, or None for the default.

    Raises:
        ValueError: a size does not fit the tensor.
        PoolingError: the server cannot answer; on the backend JAX, see `pooling_client.jax`.
    """
    compute = _torch if keras.backend.backend() == "torch" else _jax
    with renamed_errors(_NAMES):
        return compute(mode, inputs, pool_size, strides, padding, data_format, server)


def _torch(
    mode: str,
    inputs: Any,
    pool_size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str,
    data_format: str,
    server: str | None,
) -> Any:
    from pooling_client.torch import functional

    function = getattr(functional, f"{mode}_pool{len(pool_size)}d")
    named = "same_upper" if padding == "same" else padding
    options: dict[str, Any] = {"padding": named, "server": server}
    if mode == "avg":
        options["count_include_pad"] = False
    if data_format == "channels_first":
        return function(inputs, pool_size, strides, **options)
    return function(inputs.movedim(-1, 1), pool_size, strides, **options).movedim(1, -1)


def _jax(
    mode: str,
    inputs: Any,
    pool_size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str,
    data_format: str,
    server: str | None,
) -> Any:
    import jax.numpy as jnp

    from pooling_client.jax import functions

    function = getattr(functions, f"{mode}_pool")
    options = {"count_include_pad": False} if mode == "avg" else {}
    arguments = (pool_size, strides, padding)
    if data_format == "channels_last":
        return function(inputs, *arguments, server=server, **options)
    pooled = function(jnp.moveaxis(inputs, 1, -1), *arguments, server=server, **options)
    return jnp.moveaxis(pooled, -1, 1)
