"""Planning: resolution of a spec for a shape and an element type. Plans are cached."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pooling_engine.dtypes import FLOAT_NAMES, FLOATS, INTEGERS, LEGAL_NAMES
from pooling_engine.errors import (
    InvalidSpecError,
    InvalidTensorError,
    PoolingError,
    TensorTooLargeError,
    UnsupportedError,
)
from pooling_engine.plans.geometry import (
    Axis,
    SlidingAxis,
    check_steps,
    is_spanned,
    resolve_adaptive,
    resolve_sliding,
)
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import SUMMING_MODES, Layout, Mode
from pooling_engine.specs.options import MAX_SPATIAL_AXES
from pooling_engine.specs.spec import PoolSpec
from pooling_engine.specs.window import Window

_SHAPE, _DTYPE = "the shape", "the element type"  # stand for the arguments with them
_RENAMED = (InvalidTensorError, UnsupportedError, TensorTooLargeError)
_MAX_BYTES = 2**63 - 1
_MAX_NUMBERED_TAPS = 2**63 - 1


def make_plan(
    spec: PoolSpec,
    shape: Sequence[int],
    dtype: Any,
    *,
    shape_field: str = "input",
    dtype_field: str = "input",
) -> PoolPlan:
    """Return the plan of `spec` for an input of `shape` and `dtype`. Plans are cached.

    Args:
        spec: options of the layer.
        shape: shape of the input.
        dtype: element type of the input.
        shape_field: the argument that gave the shape; errors of the shape name it.
        dtype_field: the argument that gave the element type; errors of the type name it.

    Raises:
        InvalidSpecError: `spec` is not a spec, or the windows do not fit the shape.
        InvalidTensorError: the shape or the element type is invalid.
        UnsupportedError: a window is too large for the engine.
        TensorTooLargeError: a tensor would have more than 2^63 - 1 bytes.
    """
    _check_spec(spec)
    try:
        return _cached_plan(spec, as_shape(shape, _SHAPE), _as_dtype(dtype))
    except _RENAMED as error:
        raise _named(error, shape_field, dtype_field) from None


def plan_of_array(
    spec: PoolSpec,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    shape_field: str = "input",
    dtype_field: str = "input",
) -> PoolPlan:
    """Return what `make_plan` returns, faster, for the shape and native type of an array."""
    _check_spec(spec)
    try:
        return _cached_plan(spec, shape, dtype)
    except _RENAMED as error:
        raise _named(error, shape_field, dtype_field) from None


def _check_spec(spec: PoolSpec) -> None:
    if not isinstance(spec, PoolSpec):
        raise InvalidSpecError(f"spec is {spec!r}; it must be a PoolSpec", field="spec")


def _named(error: PoolingError, shape_field: str, dtype_field: str) -> PoolingError:
    """Return the error with the name of the argument that caused it."""
    fields = {_SHAPE: shape_field, _DTYPE: dtype_field}
    if error.field not in fields:
        return error
    field = fields[error.field]
    return type(error)(f"{field}: {error}", field=field)


def as_shape(shape: Sequence[int], field: str) -> tuple[int, ...]:
    """Return the sizes as a tuple of integers.

    Raises:
        InvalidTensorError: `shape` is not a sequence of integers.
    """
    try:
        return tuple(map(operator.index, shape))
    except TypeError:
        raise InvalidTensorError(
            f"{field} is {shape!r}; it must be a sequence of integers", field=field
        ) from None


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the element type in native byte order, as of arrays that were normalised."""
    try:
        given = None if dtype is None else np.dtype(dtype)  # NumPy reads None as float64
    except (TypeError, ValueError, SyntaxError):
        given = None
    if given is None:
        raise InvalidTensorError(
            f"the element type is {dtype!r}; it must be one of {LEGAL_NAMES}", field=_DTYPE
        )
    native: np.dtype[Any] = given if given.isnative else given.newbyteorder("=")
    return native


@lru_cache(maxsize=512)
def _cached_plan(spec: PoolSpec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> PoolPlan:
    _check_dtype(dtype, spec.mode)
    _check_shape(shape)
    channels_last = spec.layout is Layout.CHANNELS_LAST
    spatial = shape[1:-1] if channels_last else shape[2:]
    spatial_axes = _resolve_axes(spec, spatial)
    is_summed_plane = spec.mode in SUMMING_MODES and all(map(is_spanned, spatial_axes))
    is_global = spec.global_window or is_summed_plane
    axes = _one_window(spatial) if is_global else spatial_axes
    if not is_global:
        field = "kernel" if spec.adaptive_output is None else "adaptive_output"
        for number, axis in enumerate(axes):
            check_steps(number, axis, field)
    outputs = tuple(axis.outputs for axis in spatial_axes)
    output_shape = (shape[0], *outputs, shape[-1]) if channels_last else (*shape[:2], *outputs)
    plan = PoolPlan(
        mode=spec.mode,
        dtype=dtype,
        input_shape=shape,
        output_shape=output_shape,
        axes=axes,
        spatial_axes=spatial_axes,
        outer=shape[0] if channels_last else shape[0] * shape[1],
        inner=shape[-1] if channels_last else 1,
        norm_p=spec.norm_p,
        count_include_pad=spec.count_include_pad,
        divisor_override=spec.divisor_override,
        taps=math.prod(axis.kernel for axis in axes),
        sizes=spatial,
        is_global=is_global,
        tie_policy=spec.tie_policy,
        nan_policy=spec.nan_policy,
    )
    if max(_span(shape, plan.dtype), _span(output_shape, plan.output_dtype)) > _MAX_BYTES:
        raise TensorTooLargeError(
            f"an input of shape {shape} gives an output of shape {output_shape}; "
            "neither may exceed 2^63 - 1 bytes",
            field=_SHAPE,
        )
    if plan.taps > _MAX_NUMBERED_TAPS and (plan.selects or math.isinf(plan.norm_p)):
        raise UnsupportedError(
            f"a window has {plan.taps} taps; at most 2^63 - 1 are supported for selection",
            field="kernel",
        )
    return plan


def _span(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the size of an array in bytes; that of one batch element if the batch is empty.

    NumPy rejects an empty array whose other axes are too large. Indices may have 8 bytes each.
    """
    return math.prod(shape) * dtype.itemsize if shape[0] else math.prod(shape[1:]) * 8


def _one_window(sizes: tuple[int, ...]) -> tuple[Axis, ...]:
    """Return one axis for all positions of a plane, with one window."""
    size = math.prod(sizes)
    return (SlidingAxis(size, Window(size, size), 1),)


def _resolve_axes(spec: PoolSpec, sizes: tuple[int, ...]) -> tuple[Axis, ...]:
    if spec.global_window:
        return tuple(SlidingAxis(size, Window(size, size), 1) for size in sizes)
    if spec.adaptive_output is not None:
        outputs = spec.adaptive_outputs(len(sizes))
        return tuple(
            resolve_adaptive(number, size, count)
            for number, (size, count) in enumerate(zip(sizes, outputs, strict=True))
        )
    windows = spec.windows(len(sizes))
    return tuple(
        resolve_sliding(number, size, window, spec.padding, spec.ceil_mode)
        for number, (size, window) in enumerate(zip(sizes, windows, strict=True))
    )


def _check_dtype(dtype: np.dtype[Any], mode: Mode) -> None:
    if dtype in FLOATS or (dtype in INTEGERS and mode is not Mode.LP):
        return
    if dtype in INTEGERS:
        raise InvalidTensorError(
            f'the element type is {dtype.name}; mode "lp" accepts {FLOAT_NAMES}',
            field=_DTYPE,
        )
    raise InvalidTensorError(
        f"the element type is {dtype.name}; it must be one of {LEGAL_NAMES}", field=_DTYPE
    )


def _check_shape(shape: tuple[int, ...]) -> None:
    if not 3 <= len(shape) <= 2 + MAX_SPATIAL_AXES:
        raise InvalidTensorError(
            f"the shape {shape} has {len(shape)} axes; it must have N, C and "
            f"1 to {MAX_SPATIAL_AXES} spatial axes",
            field=_SHAPE,
        )
    if shape[0] < 0 or min(shape[1:]) < 1:
        raise InvalidTensorError(
            f"the shape is {shape}; N may be zero, every other size must be at least 1",
            field=_SHAPE,
        )
