"""Pooling functions with the signatures of Flax, computed on a server.

Arrays have the shape (..., D1..Dn, C), with any number of batch axes, also none. Each function
returns an array of shape (..., O1..On, C) and the same element type. Gradients are computed on the
server too.

The functions work under `jit`, `grad`, `vmap`, `scan` and `checkpoint`, on one device.
Differentiation is in reverse mode, of any order; `lp_pool` has the first derivative only.
"""

from __future__ import annotations

from typing import Any

import jax

from pooling_client._training.clients import check_server, client_of
from pooling_client._training.errors import renamed_errors
from pooling_client.jax import _ops
from pooling_client.jax._arguments import (
    NAMES,
    Padding,
    Sizes,
    as_array,
    check_output,
    paddings,
    sizes,
)
from pooling_engine import PoolSpec


def max_pool(
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    *,
    server: str | None = None,
) -> jax.Array:
    """Return the largest element of each window. Of equal elements, the first gets the gradient.

    Args:
        inputs: array of shape (..., D1..Dn, C); float16, bfloat16, float32, float64 or integers.
        window_shape: size of a window along each spatial axis.
        strides: step from window to window along each spatial axis; by default 1.
        padding: "VALID", "SAME" or "SAME_LOWER", or a pair (before, after) per spatial axis, each
            less than the size of the window.
        server: target of the server (``HOST:PORT``, ``unix:/PATH``); if None or empty, the
            variable ``POOLING_TARGET``, or else ``127.0.0.1:50051``.

    Raises:
        TypeError: an argument has the wrong type, or `inputs` an element type without a kernel.
        ValueError: a size or a shape is invalid (`InvalidSpecError`, `InvalidTensorError`).
            Both are raised when the function is traced; nothing is sent.
        jax.errors.JaxRuntimeError: the server cannot answer. The text names the `PoolingError`.
            A function that was compiled before raises ValueError instead.
    """
    return _pool(_ops.selected, "max", inputs, window_shape, strides, padding, server)


def min_pool(
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    *,
    server: str | None = None,
) -> jax.Array:
    """Return the smallest element of each window; arguments and errors as of `max_pool`."""
    return _pool(_ops.selected, "min", inputs, window_shape, strides, padding, server)


def avg_pool(
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    *,
    server: str | None = None,
) -> jax.Array:
    """Return the average of each window; other arguments and errors as of `max_pool`.

    Args:
        count_include_pad: whether padding counts in the divisor, also that of "SAME".
    """
    options = {"count_include_pad": count_include_pad}
    return _pool(_ops.summed, "average", inputs, window_shape, strides, padding, server, options)


def sum_pool(
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    *,
    server: str | None = None,
) -> jax.Array:
    """Return the sum of each window; arguments and errors as of `max_pool`."""
    return _pool(_ops.summed, "sum", inputs, window_shape, strides, padding, server)


def lp_pool(
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None = None,
    padding: Padding = "VALID",
    *,
    norm_p: float = 2.0,
    server: str | None = None,
) -> jax.Array:
    """Return the p-norm of each window; other arguments and errors as of `max_pool`.

    Args:
        norm_p: the p of the norm, at least 1, or infinity.
    """
    options = {"norm_p": norm_p}
    return _pool(_ops.normed, "lp", inputs, window_shape, strides, padding, server, options)


def _pool(
    function: Any,
    mode: str,
    inputs: Any,
    window_shape: Sizes,
    strides: Sizes | None,
    padding: Padding,
    server: str | None,
    options: dict[str, Any] | None = None,
) -> jax.Array:
    kernel = sizes("window_shape", window_shape)
    rank = len(kernel)
    stride = (1,) * rank if strides is None else sizes("strides", strides, rank)
    x = as_array(inputs, rank)
    target = check_server(server)
    with renamed_errors(NAMES):
        spec = PoolSpec(
            mode, kernel, stride, paddings(padding, rank), layout="channels_last", **options or {}
        )
        layer = _ops.Layer(spec, target, x.shape[-1 - rank : -1], x.dtype)
        check_output(layer.plan.output_dtype, mode, x)
        client_of(target)  # rejects an invalid target; connects later
    pooled: jax.Array = function(layer, x)
    return pooled
