"""Window indices as offsets of the selected elements in a tile, checked, side by side in vectors.

The number of a tap is split into its taps along the axes by divisions, from the last axis on. The
quotient of floats, rounded down, is exact for numbers as small as these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.jit import implements, part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import (
    Element,
    Pointer,
    ahead,
    convert,
    get,
    put,
)

NOWHERE = -1  # cell of an output that selects no element of the tile
SPLIT_COLUMNS = 2  # of a row of `splits`: taps along an axis, and the offset from tap to tap
_NO_CELL = -(1 << 30)  # cell of a tap that is on no element
_LEAST_CELL = -(1 << 29)  # other cells are above it: plans with larger offsets have no kernel
_LARGEST_IN_FLOAT32 = 1 << 22  # windows of more taps are divided in float64


class FirstTaps(NamedTuple):
    """The windows of one output of the first axis.

    Attributes:
        start: offset of the first tap from the tile.
        step: offset from tap to tap.
        first: first tap on an element.
        stop: one after the last tap on an element.
    """

    start: int
    step: int
    first: int
    stop: int


def _quotient(number: Element, inverse: Element) -> Element:
    """Return ``number // divisor`` for the inverse of a divisor, as int32."""


@implements(_quotient)
def _quotient_in_type(number: Any, inverse: Any) -> Any:
    if inverse == types.float32:
        return lambda number, inverse: np.int32(
            np.float32(np.float32(number) + np.float32(0.5)) * inverse
        )
    return lambda number, inverse: np.int32((np.float64(number) + 0.5) * inverse)


@part
def _cell_of_tap(cell: Element, tap: Element, first: Element, stop: Element, step: Element) -> Any:
    """Return the cell moved by a tap along one axis, or `_NO_CELL` if it is on no element."""
    is_on_element = (tap >= first) & (tap < stop)
    return pick(is_on_element, np.int32(cell + np.int32(tap * step)), np.int32(_NO_CELL))


@part
def _start(
    index: Pointer, first_cells: Pointer, numbers: Pointer, cells: Pointer, count: int, window: int
) -> None:
    """Write the tap numbers of all indices, and the first cells of their windows."""
    end, none = convert(window, index), np.int32(_NO_CELL)
    for i in range(count):
        is_number = get(index, i) < end
        put(numbers, i, pick(is_number, np.int32(get(index, i)), np.int32(0)))
        put(cells, i, pick(is_number, get(first_cells, i), none))


@part
def _split(
    limits: Pointer, numbers: Pointer, cells: Pointer,
    count: int, taps: int, step: int, inverse: Element,
) -> None:  # fmt: skip
    """Split one axis off the tap numbers, and move the cells along it."""
    length, distance = np.int32(taps), np.int32(step)
    for i in range(count):
        number, cell = get(numbers, i), get(cells, i)
        quotient = _quotient(number, inverse)
        tap = np.int32(number - np.int32(quotient * length))
        put(numbers, i, quotient)
        put(cells, i, _cell_of_tap(cell, tap, get(limits, i), get(limits, count + i), distance))


@part
def _finish(
    index: Pointer, numbers: Pointer, cells: Pointer, count: int, taps: FirstTaps, size: int
) -> tuple[bool, bool]:
    """Move the cells along the first axis, and check them."""
    first, stop, step = np.int32(taps.first), np.int32(taps.stop), np.int32(taps.step)
    start, end, no_index = np.int32(taps.start), np.uint32(size), convert(-1, index)
    least, nowhere, zero = np.int32(_LEAST_CELL), np.int32(NOWHERE), np.int32(0)
    invalid, lowest = zero, zero
    for i in range(count):
        cell = _cell_of_tap(get(cells, i), get(numbers, i), first, stop, step)
        is_wrong = (cell < least) & (get(index, i) != no_index)
        cell = np.int32(cell + start)
        cell = pick(np.uint32(cell) < end, cell, nowhere)
        put(cells, i, cell)
        invalid = min(invalid, pick(is_wrong, nowhere, zero))
        lowest = min(lowest, cell)
    return bool(invalid < 0), bool(lowest < 0)


@part
def _find_on_two_axes(
    index: Pointer, first_cells: Pointer, limits: Pointer, splits: Pointer, cells: Pointer,
    count: int, window: int, taps: FirstTaps, size: int, has_limits: bool,
) -> tuple[bool, bool]:  # fmt: skip
    """Find cells in one pass, if the numbers of taps have two parts.

    Args:
        has_limits: whether the second part is of an axis with limits, else of the first axis.
    """
    length, last_step = np.int32(get(splits, 0)), np.int32(get(splits, 1))
    step = np.int32(get(splits, SPLIT_COLUMNS + 1) if has_limits else taps.step)
    first, stop, start = np.int32(taps.first), np.int32(taps.stop), np.int32(taps.start)
    end, number_end, no_index = np.uint32(size), convert(window, index), convert(-1, index)
    inverse, outer = np.float32(np.float32(1) / np.float32(length)), ahead(limits, 2 * count)
    nowhere, zero = np.int32(NOWHERE), np.int32(0)
    invalid, lowest = zero, zero
    for i in range(count):
        number = np.int32(get(index, i))
        quotient = _quotient(number, inverse)
        tap = np.int32(number - np.int32(quotient * length))
        is_valid = (get(index, i) < number_end) & (
            (tap >= get(limits, i)) & (tap < get(limits, count + i))
        )
        if has_limits:
            is_valid &= (quotient >= get(outer, i)) & (quotient < get(outer, count + i))
        else:
            is_valid &= (quotient >= first) & (quotient < stop)
        cell = np.int32(get(first_cells, i) + np.int32(tap * last_step))
        cell = np.int32(cell + np.int32(start + np.int32(quotient * step)))
        cell = pick(is_valid & (np.uint32(cell) < end), cell, nowhere)
        put(cells, i, cell)
        invalid = min(invalid, pick(is_valid | (get(index, i) == no_index), zero, nowhere))
        lowest = min(lowest, cell)
    return bool(invalid < 0), bool(lowest < 0)


@routine
def find_cells(
    index: Pointer, first_cells: Pointer, limits: Pointer, splits: Pointer, axes: int,
    numbers: Pointer, cells: Pointer, count: int, window: int, taps: FirstTaps, size: int,
) -> tuple[bool, bool]:  # fmt: skip
    """Find the elements that outputs at one position of the first axis select.

    Args:
        index: their indices.
        first_cells: offsets of the first taps of their windows along the other axes.
        limits: for each axis but the first, from the last on: for each output its first tap on an
            element, then for each output the one after its last.
        splits: for each of these axes the taps of a window, and the offset from tap to tap.
        axes: number of these axes.
        numbers: room for `count` int32.
        cells: receives the offset of each selected element from the start of the tile, or NOWHERE.
        count: number of outputs.
        window: taps of a window along all axes.
        taps: windows along the first axis.
        size: elements of the tile.

    Returns:
        Whether an index is invalid; and whether any cell is NOWHERE.
    """
    is_small = window < _LARGEST_IN_FLOAT32
    if is_small and axes == 1:
        return _find_on_two_axes(
            index, first_cells, limits, splits, cells, count, window, taps, size, False
        )
    if is_small and axes == 2 and taps.first == 0 and taps.stop == 1:
        return _find_on_two_axes(
            index, first_cells, limits, splits, cells, count, window, taps, size, True
        )
    _start(index, first_cells, numbers, cells, count, window)
    for a in range(axes):
        own, step = get(splits, SPLIT_COLUMNS * a), get(splits, SPLIT_COLUMNS * a + 1)
        own_limits, inverse = ahead(limits, 2 * count * a), 1.0 / own
        if is_small:
            _split(own_limits, numbers, cells, count, own, step, np.float32(inverse))
        else:
            _split(own_limits, numbers, cells, count, own, step, inverse)
    return _finish(index, numbers, cells, count, taps, size)
