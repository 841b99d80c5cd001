"""Index formats: conversions between window indices and positions, and checks of entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.errors import InvalidSpecError, InvalidTensorError
from pooling_engine.plans.geometry import Axis
from pooling_engine.plans.plan import MAX_INDEXED_TAPS, PoolPlan
from pooling_engine.specs.enums import IndexFormat

Array = NDArray[Any]
NO_POSITION = -1  # for a window without a valid element, in the int64 formats


def check_tap_count(plan: PoolPlan) -> None:
    """Reject windows with more taps than an index can number.

    Raises:
        InvalidSpecError: a window has more than `MAX_INDEXED_TAPS` taps.
    """
    if plan.taps > MAX_INDEXED_TAPS:
        raise InvalidSpecError(
            f"a window has {plan.taps} taps; indices support at most {MAX_INDEXED_TAPS}",
            field="kernel",
        )


def to_positions(
    plan: PoolPlan, windows: Array, index_format: IndexFormat, positions: Array
) -> None:
    """Write window indices as int64 positions in the plane or the tensor.

    Args:
        plan: plan of the call.
        windows: window indices, of the output's shape.
        index_format: "plane" or "tensor".
        positions: int64 array of the output's shape to write into.
    """
    numbers = windows.reshape(plan.output_block_shape).astype(np.int64)
    blocks = positions.reshape(plan.output_block_shape)
    blocks[...] = _plane_starts(plan) if index_format is IndexFormat.TENSOR else 0
    for axis, weight, plane_step, trailing in _axes(plan):
        number = numbers // weight % axis.kernel
        starts = axis.starts().reshape((-1,) + (1,) * trailing)
        blocks += (starts + number * axis.dilation) * plane_step
    blocks[numbers == np.iinfo(windows.dtype).max] = NO_POSITION


def _plane_starts(plan: PoolPlan) -> Array:
    """Return the start of each plane in a tensor of shape (N, C, D1..Dn).

    The result broadcasts with the output's block shape: (N * C, .., 1) or, channels last,
    (N, .., C).
    """
    starts = np.arange(plan.outer * plan.inner, dtype=np.int64) * _plane_size(plan)
    middle = (1,) * len(plan.axes)
    return starts.reshape(plan.outer, *middle, plan.inner)


def _plane_size(plan: PoolPlan) -> int:
    return math.prod(axis.size for axis in plan.axes)


def check_indices(plan: PoolPlan, indices: Any, index_format: IndexFormat | None) -> IndexFormat:
    """Return the format of indices from the caller, once their shape and type are checked.

    Args:
        plan: plan of the call.
        indices: on the host or a device; unsigned window indices or int64 positions.
        index_format: format that the caller names; None derives it from the element type.

    Raises:
        InvalidSpecError: a window has more than `MAX_INDEXED_TAPS` taps.
        InvalidTensorError: the type or the shape is wrong.
    """
    if indices.shape != plan.output_shape:
        raise InvalidTensorError(
            f"indices have shape {indices.shape}; the output has {plan.output_shape}",
            field="indices",
        )
    is_positions = indices.dtype == np.int64
    index_format = index_format or (IndexFormat.PLANE if is_positions else IndexFormat.WINDOW)
    check_tap_count(plan)
    expected = plan.index_dtype_of(index_format)
    if indices.dtype != expected:
        raise InvalidTensorError(
            f'indices are {indices.dtype.name}; format "{index_format}" needs {expected.name} here',
            field="indices",
        )
    return index_format


def from_positions(plan: PoolPlan, positions: Array, index_format: IndexFormat) -> Array:
    """Return window indices for int64 positions in the plane or the tensor.

    Args:
        plan: plan of the call.
        positions: of the output's shape.
        index_format: "plane" or "tensor".

    Raises:
        InvalidTensorError: a position is not that of an element of its window.
    """
    blocks = positions.reshape(plan.output_block_shape)
    is_none = blocks == NO_POSITION
    legal = f"from 0 to {_plane_size(plan) - 1}, or -1 for none"
    if index_format is IndexFormat.TENSOR:
        blocks = blocks - _plane_starts(plan)
        legal = "a position in its own plane of the tensor, or -1 for none"
    is_outside = ((blocks < 0) | (blocks >= _plane_size(plan))) & ~is_none
    _reject(positions, is_outside.reshape(positions.shape), legal)
    numbers = np.zeros_like(blocks)
    for axis, weight, plane_step, trailing in _axes(plan):
        starts = axis.starts().reshape((-1,) + (1,) * trailing)
        distance = blocks // plane_step % axis.size - starts
        number, remainder = np.divmod(distance, axis.dilation)
        first, stop = (limit.reshape((-1,) + (1,) * trailing) for limit in axis.tap_limits())
        is_outside |= (remainder != 0) | (number < first) | (number >= stop)
        numbers += number * weight
    is_outside &= ~is_none
    _reject(positions, is_outside.reshape(positions.shape), "a position inside its own window")
    numbers[is_none] = np.iinfo(plan.index_dtype).max
    return numbers.astype(plan.index_dtype).reshape(plan.output_shape)


def check_window_indices(plan: PoolPlan, indices: Array) -> None:
    """Reject window indices that name no element of their window.

    Raises:
        InvalidTensorError: an entry is out of range, or names a tap in the padding.
    """
    none = np.iinfo(indices.dtype).max
    if indices.size == 0:
        return
    if plan.taps < none and indices.max() >= plan.taps:
        wrong = (indices >= plan.taps) & (indices != none)
        _reject(indices, wrong, f"from 0 to {plan.taps - 1}, or {none} for none")
    blocks = indices.reshape(plan.output_block_shape)
    for number, (axis, weight, _, trailing) in enumerate(_axes(plan)):
        first, stop = axis.tap_limits()
        # Only the few windows at the borders have taps in the padding.
        border = np.flatnonzero(stop - first < axis.kernel)
        if not border.size:
            continue
        strip = np.take(blocks, border, axis=number + 1)
        taps = strip.astype(np.int64) // weight % axis.kernel
        least, end = (limit[border].reshape((-1,) + (1,) * trailing) for limit in (first, stop))
        is_outside = ((taps < least) | (taps >= end)) & (strip != none)
        if is_outside.any():
            wrong = np.zeros(blocks.shape, np.bool_)
            wrong[(slice(None),) * (number + 1) + (border,)] = is_outside
            _reject(
                indices,
                wrong.reshape(indices.shape),
                "a tap on an element of its window, not in the padding",
            )


def _reject(indices: Array, wrong: Array, legal: str) -> None:
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InvalidTensorError(
            f"the index at {where} is {int(indices[where])}; it must be {legal}", field="indices"
        )


def _axes(plan: PoolPlan) -> list[tuple[Axis, int, int, int]]:
    """Return each axis, its weight in an index and in a position, and the number of later axes."""
    count = len(plan.axes)
    return [
        (
            axis,
            math.prod(later.kernel for later in plan.axes[number + 1 :]),
            math.prod(later.size for later in plan.axes[number + 1 :]),
            count - number,
        )
        for number, axis in enumerate(plan.axes)
    ]
