"""Indices of a chunk, counted in the chunk on the wire and in the whole tensor for the caller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_client._cutting.chunks import Chunk
from pooling_engine import IndexFormat, InvalidTensorError, Layout, PoolPlan
from pooling_engine.plans import NO_POSITION, check_window_indices, make_plan

Array = NDArray[Any]


def to_call(plan: PoolPlan, chunk: Chunk, indices: Array, index_format: IndexFormat) -> Array:
    """Convert indices of a chunk, from the server, to indices of the whole call."""
    if index_format is IndexFormat.WINDOW:
        return _with_type(indices, plan.index_dtype)
    return np.where(indices == NO_POSITION, indices, indices + _offsets(plan, chunk, index_format))


def to_chunk(plan: PoolPlan, chunk: Chunk, indices: Array, index_format: IndexFormat) -> Array:
    """Convert the indices of the caller that belong to a chunk to indices of the chunk.

    Raises:
        InvalidTensorError: an entry has no equivalent in the chunk, so it is invalid.
    """
    part = indices[chunk.outputs]
    if index_format is IndexFormat.WINDOW:
        return _window_to_chunk(plan, chunk, part)
    offsets = _offsets(plan, chunk, index_format)
    is_before = (part != NO_POSITION) & (part < offsets)
    if is_before.any():  # the difference could be NO_POSITION
        where = tuple(int(i) for i in np.argwhere(is_before)[0])
        start = tuple(side.start or 0 for side in chunk.outputs)
        whole = tuple(a + b for a, b in zip(where, start, strict=True))
        raise InvalidTensorError(
            f"the index at {whole} is {int(part[where])}; "
            "it must be a position inside its own window",
            field="indices",
        )
    return np.where(part == NO_POSITION, part, part - offsets)


def _window_to_chunk(plan: PoolPlan, chunk: Chunk, part: Array) -> Array:
    chunk_plan = make_plan(chunk.spec, chunk.input_shape(plan), plan.dtype)
    if chunk_plan.index_dtype != part.dtype:
        check_window_indices(chunk_plan, part)  # the smaller type may have no value for an entry
    return _with_type(part, chunk_plan.index_dtype)


def _with_type(windows: Array, dtype: np.dtype[Any]) -> Array:
    """Convert window indices to another type, with "none" as its largest value."""
    if windows.dtype == dtype:
        return windows
    none = windows == np.iinfo(windows.dtype).max
    return np.where(none, np.iinfo(dtype).max, windows).astype(dtype)


def _offsets(plan: PoolPlan, chunk: Chunk, index_format: IndexFormat) -> Any:
    """Return the differences between positions in the call and in the chunk, for each plane."""
    is_last = chunk.spec.layout is Layout.CHANNELS_LAST
    n_side, *_, last_side = chunk.inputs
    c_side, row_side = (last_side, chunk.inputs[1]) if is_last else chunk.inputs[1:3]
    channels = plan.input_shape[-1 if is_last else 1]
    row = math.prod(plan.sizes[1:])
    first, stop, _ = row_side.indices(plan.sizes[0])
    if index_format is IndexFormat.PLANE:
        return first * row
    n = np.arange(*n_side.indices(plan.input_shape[0]))[:, None]
    c = np.arange(*c_side.indices(channels))[None]
    plane = np.arange(n.size * c.size).reshape(n.size, c.size)
    offsets = (n * channels + c) * plan.sizes[0] * row + first * row - plane * (stop - first) * row
    middle = (1,) * len(plan.sizes)
    return offsets.reshape((n.size, *middle, c.size) if is_last else (n.size, c.size, *middle))
