"""Calls of a server that JAX differentiates in reverse mode.

Each operation is a `custom_vjp`, and so is its derivative, so gradients of every order exist:

    summed    <->  _unsummed       "average" and "sum"
    selected   ->  _scattered      "max" and "min"
    _selected  ->  _scattered      the same, with window indices for the gradient
    _scattered <-> _gathered       the latter is computed by JAX
    normed     ->  _norm_gradient  "lp", which has the first derivative only

Arrays have shape (..., D1..Dn, C). The batch axes are merged in the callback, so `vmap` adds one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pooling_engine
from pooling_client.jax import _callbacks
from pooling_client.jax._callbacks import Remote
from pooling_engine import PoolPlan, PoolSpec

Array = jax.Array


class Layer(NamedTuple):
    """Pooling layer for one form of input.

    Attributes:
        spec: options, channels last.
        server: target of the server; empty for the default.
        sizes: spatial sizes of the input.
        dtype: element type of the input.
    """

    spec: PoolSpec
    server: str
    sizes: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def plan(self) -> PoolPlan:
        """Plan of the layer for one image with one channel."""
        return pooling_engine.plan(self.spec, (1, *self.sizes, 1), self.dtype)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        return self.plan.output_shape[1:-1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def summed(layer: Layer, x: Array) -> Array:
    """Return the average or sum of each window."""
    return _call(_callbacks.forward, layer, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unsummed(layer: Layer, dy: Array) -> Array:
    return _call(_callbacks.backward, layer, dy)


summed.defvjp(
    lambda layer, x: (summed(layer, x), None),
    lambda layer, _, dy: (_unsummed(layer, dy),),
)
_unsummed.defvjp(
    lambda layer, dy: (_unsummed(layer, dy), None),
    lambda layer, _, ddx: (summed(layer, ddx),),
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def selected(layer: Layer, x: Array) -> Array:
    """Return the largest or smallest element of each window."""
    return _call(_callbacks.forward, layer, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _selected(layer: Layer, x: Array) -> tuple[Array, Array]:
    output, indices = _result(layer, x), _result(layer, x, layer.plan.index_dtype)
    remote = Remote(_callbacks.forward_with_indices, layer)
    pair: tuple[Array, Array] = jax.pure_callback(
        remote, (output, indices), x, vmap_method="broadcast_all"
    )
    return pair


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scattered(layer: Layer, dy: Array, indices: Array) -> Array:
    return _call(_callbacks.backward, layer, dy, indices)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(layer: Layer, x: Array, indices: Array) -> Array:
    """Return the element of each window that its index selects; 0 for none."""
    count = math.prod(layer.sizes)
    flat = x.reshape(*indices.shape[: -1 - len(layer.sizes)], count, x.shape[-1])
    positions = _positions(layer, indices).reshape(*flat.shape[:-2], -1, x.shape[-1])
    taken = jnp.take_along_axis(flat, positions, axis=-2, mode="clip").reshape(indices.shape)
    return jnp.where(indices == np.iinfo(layer.plan.index_dtype).max, 0, taken)


def _positions(layer: Layer, indices: Array) -> Array:
    """Return window indices as positions in the plane."""
    numbers = indices.astype(jnp.int32)
    positions, step = jnp.zeros_like(numbers), 1
    axes = layer.plan.planned_axes
    for axis, window in reversed(list(enumerate(axes))):
        start = np.arange(window.outputs, dtype=np.int32) * window.stride - window.padding_before
        start = start.reshape(-1, *[1] * (len(axes) - axis))
        positions += (start + numbers % window.kernel) * step
        numbers //= window.kernel
        step *= window.size
    return positions


def _selected_forward(layer: Layer, x: Array) -> Any:
    pair = _selected(layer, x)
    return pair, pair[1]


selected.defvjp(
    lambda layer, x: _selected(layer, x),
    lambda layer, indices, dy: (_scattered(layer, dy, indices),),
)
_selected.defvjp(
    _selected_forward,
    lambda layer, indices, gradients: (_scattered(layer, gradients[0], indices),),
)
_scattered.defvjp(
    lambda layer, dy, indices: (_scattered(layer, dy, indices), indices),
    lambda layer, indices, ddx: (_gathered(layer, ddx, indices), None),
)
_gathered.defvjp(
    lambda layer, x, indices: (_gathered(layer, x, indices), indices),
    lambda layer, indices, dy: (_scattered(layer, dy, indices), None),
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def normed(layer: Layer, x: Array) -> Array:
    """Return the p-norm of each window."""
    return _call(_callbacks.forward, layer, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _norm_gradient(layer: Layer, dy: Array, x: Array) -> Array:
    return _call(_callbacks.backward_of_input, layer, dy, x)


def _no_second_derivative(*_: Any) -> Any:
    raise NotImplementedError(
        "lp_pool has no second derivative; max_pool, min_pool, avg_pool and sum_pool have"
    )


normed.defvjp(
    lambda layer, x: (normed(layer, x), x),
    lambda layer, x, dy: (_norm_gradient(layer, dy, x),),
)
_norm_gradient.defvjp(_no_second_derivative, _no_second_derivative)


def _call(function: _callbacks.Callback, layer: Layer, *arrays: Array) -> Array:
    """Return the result of a callback: an output, or an input gradient."""
    is_forward = function is _callbacks.forward
    form = _result(layer, arrays[0]) if is_forward else _gradient(layer, arrays[0])
    remote = Remote(function, layer)
    result: Array = jax.pure_callback(remote, form, *arrays, vmap_method="broadcast_all")
    return result


def _result(layer: Layer, x: Array, dtype: Any = None) -> jax.ShapeDtypeStruct:
    batch = x.shape[: -1 - len(layer.sizes)]
    return _form((*batch, *layer.outputs, x.shape[-1]), dtype or layer.plan.output_dtype)


def _gradient(layer: Layer, dy: Array) -> jax.ShapeDtypeStruct:
    batch = dy.shape[: -1 - len(layer.sizes)]
    return _form((*batch, *layer.sizes, dy.shape[-1]), layer.dtype)


def _form(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
