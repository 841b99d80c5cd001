"""Indices of a piece: counted in the piece on the wire, in the whole tensor for the caller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_client._cutting.pieces import Piece
from pooling_engine import IndexFormat, InvalidTensorError, Layout, PoolPlan
from pooling_engine.plans.indices import NO_POSITION, refuse_forged
from pooling_engine.plans.planning import make_plan

Array = NDArray[Any]


def to_whole(plan: PoolPlan, piece: Piece, indices: Array, index_format: IndexFormat) -> Array:
    """Indices that a server gave for a piece, as those of the whole call."""
    if index_format is IndexFormat.WINDOW:
        return _renumbered(indices, plan.index_dtype)
    return np.where(indices == NO_POSITION, indices, indices + _offsets(plan, piece, index_format))


def to_piece(plan: PoolPlan, piece: Piece, indices: Array, index_format: IndexFormat) -> Array:
    """The part of the caller's indices that belongs to a piece, as indices of the piece.

    Raises:
        InvalidTensorError: an entry cannot be written as an index of the piece, and is forged.
    """
    part = indices[piece.outputs]
    if index_format is IndexFormat.WINDOW:
        return _window_to_piece(plan, piece, part)
    offsets = _offsets(plan, piece, index_format)
    is_before = (part != NO_POSITION) & (part < offsets)
    if is_before.any():  # subtracting would make "none" of some
        where = tuple(int(i) for i in np.argwhere(is_before)[0])
        start = tuple(side.start or 0 for side in piece.outputs)
        whole = tuple(a + b for a, b in zip(where, start, strict=True))
        raise InvalidTensorError(
            f"the index at {whole} is {int(part[where])}; "
            "it must be a position inside its own window",
            field="indices",
        )
    return np.where(part == NO_POSITION, part, part - offsets)


def _window_to_piece(plan: PoolPlan, piece: Piece, part: Array) -> Array:
    shape = plan.input_shape
    sizes = tuple(len(range(size)[side]) for size, side in zip(shape, piece.inputs, strict=True))
    own = make_plan(piece.spec, sizes, plan.dtype)
    if own.index_dtype != part.dtype:
        refuse_forged(own, part)  # the smaller type may have no value for it
    return _renumbered(part, own.index_dtype)


def _renumbered(windows: Array, dtype: np.dtype[Any]) -> Array:
    """Window indices in another type, whose top value again means none."""
    if windows.dtype == dtype:
        return windows
    none = windows == np.iinfo(windows.dtype).max
    return np.where(none, np.iinfo(dtype).max, windows).astype(dtype)


def _offsets(plan: PoolPlan, piece: Piece, index_format: IndexFormat) -> Any:
    """What positions in the whole are ahead of those in the piece; for each plane of the piece."""
    is_last = piece.spec.layout is Layout.CHANNELS_LAST
    n_side, *_, last_side = piece.inputs
    c_side, row_side = (last_side, piece.inputs[1]) if is_last else piece.inputs[1:3]
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
