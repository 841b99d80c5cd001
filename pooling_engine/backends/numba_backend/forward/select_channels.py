"""Selection from small windows over two axes, with channels side by side in vectors.

The extremes of a window and the numbers of their taps stay in registers while its taps are
compared in row-major order, so the first of equal elements is selected.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.forward.candidates import NO_TAP, Numbered, further
from pooling_engine.backends.numba_backend.forward.reduce_tile import Tile
from pooling_engine.backends.numba_backend.language.axes import (
    TileSizes,
    axis_at,
    is_unchanged,
    tap_range_of,
)
from pooling_engine.backends.numba_backend.language.jit import part, routine, section
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get
from pooling_engine.backends.numba_backend.language.selection import (
    Operation,
    identity_of,
    is_better,
)
from pooling_engine.backends.numba_backend.language.vectors import (
    filled,
    load_4,
    load_8,
    load_16,
    load_64,
    pick_lanes,
    store_vector,
)

LEAST_CHANNELS = 4
MOST_TAPS = 9  # of windows that overlap with stride 1; along each axis, more are selected faster
MOST_STRIDED_TAPS = 64


class Taps(NamedTuple):
    """The taps of a window that are on elements.

    Attributes:
        number: number of the first.
        rows: rows of taps.
        row_step: distance from row to row in elements.
        row_taps: difference of the numbers of two rows.
        columns: taps of a row.
        step: distance from tap to tap in elements.
    """

    number: int
    rows: int
    row_step: int
    row_taps: int
    columns: int
    step: int


@section
def has_small_windows(sizes: TileSizes, axes: Pointer) -> bool:
    """Return whether `select_channels` selects from the windows of a plan."""
    first, last = axis_at(axes, 0), axis_at(axes, 1)
    if sizes.axes != 2 or is_unchanged(first) or sizes.inner < LEAST_CHANNELS:
        return False
    most = MOST_STRIDED_TAPS if first.stride > 1 and last.stride > 1 else MOST_TAPS
    return first.taps * last.taps <= most


def _selection(load: Any, lanes: int) -> Any:
    """Return the selection of a vector of outputs, which `load` loads."""

    @part
    def select_window(
        elements: Pointer,
        target: Numbered,
        window: Taps,
        operation: Operation,
    ) -> None:
        """Select from the taps of a window that are on elements; `elements` is the first."""
        like = load(target.taps, 0)
        if window.rows <= 0 or window.columns <= 0:
            identity = identity_of(get(elements, 0), operation)
            store_vector(target.values, 0, filled(identity, load(target.values, 0)))
            store_vector(target.taps, 0, filled(np.int32(NO_TAP), like))
            return
        best, best_tap = load(elements, 0), filled(np.int32(window.number), like)
        begin = 1
        for row in range(window.rows):
            taps = ahead(elements, row * window.row_step)
            number = window.number + row * window.row_taps
            for column in range(begin, window.columns):
                value = load(taps, column * window.step)
                is_new = is_better(value, best, operation)
                best = pick_lanes(is_new, value, best)
                best_tap = pick_lanes(is_new, filled(np.int32(number + column), like), best_tap)
            begin = 0
        store_vector(target.values, 0, best)
        store_vector(target.taps, 0, best_tap)

    @routine
    def select_all(
        elements: Pointer, target: Numbered, inner: int, window: Taps, operation: Operation
    ) -> None:
        """Select all channels; the last vector overlaps with the one before."""
        for vector in range(-(-inner // lanes)):
            at = max(0, min(vector * lanes, inner - lanes))
            select_window(ahead(elements, at), further(target, at), window, operation)

    return select_all


_select_4, _select_8 = _selection(load_4, 4), _selection(load_8, 8)
_select_16, _select_64 = _selection(load_16, 16), _selection(load_64, 64)


@routine
def select_channels(
    rows: Pointer,
    target: Numbered,
    tile: Tile,
    sizes: TileSizes,
    axes: Pointer,
    tap_ranges: Pointer,
    operation: Operation,
) -> None:
    """Select the outputs of a tile from its input rows, from `input_begin` on."""
    first, last = axis_at(axes, 0), axis_at(axes, 1)
    inner, ranges = sizes.inner, ahead(tap_ranges, last.ranges)
    for output in range(tile.begin, tile.end):
        down = tap_range_of(tap_ranges, first.outputs, output)
        top = down.start + down.first * first.dilation
        bottom = down.start + (down.stop - 1) * first.dilation
        elements = ahead(rows, (top - tile.input_begin) * sizes.row)
        results = further(target, (output - tile.begin) * sizes.out_row)
        for column in range(last.outputs):
            across = tap_range_of(ranges, last.outputs, column)
            left = across.start + across.first * last.dilation
            right = across.start + (across.stop - 1) * last.dilation
            window = Taps(
                down.first * last.taps + across.first,
                down.stop - down.first, first.dilation * sizes.row, last.taps,
                across.stop - across.first, last.dilation * inner,
            )  # fmt: skip
            taps, outputs = ahead(elements, left * inner), further(results, column * inner)
            is_end = bottom == tile.input_end - 1 and right == last.size - 1
            is_end |= output == tile.end - 1 and column == last.outputs - 1
            if inner % 64 == 0 or inner > 128:
                _select_64(taps, outputs, inner, window, operation)
            elif inner >= 16:
                _select_16(taps, outputs, inner, window, operation)
            elif is_end:  # a longer vector would be at memory that the tile does not have
                _select_4(taps, outputs, inner, window, operation)
            elif inner > 8:
                _select_16(taps, outputs, inner, window, operation)
            else:
                _select_8(taps, outputs, inner, window, operation)
