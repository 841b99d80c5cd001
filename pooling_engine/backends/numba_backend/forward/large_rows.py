"""Extremes along rows with large windows and a stride of 1, by blocks that grow fourfold.

A block of 4n taps is four blocks of n, and the last blocks of a window may overlap. All rows of a
group, with their padding, are one vector loop.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.arguments import LargeSizes
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, ahead
from pooling_engine.backends.numba_backend.language.selection import Operation, is_better
from pooling_engine.backends.numba_backend.language.vectors import load_16, pick_lanes, store_vector

LANES = 16
_GROWTH = 4  # from blocks to the next larger ones


@routine
def select_rows(
    source: Pointer,
    rows: int,
    target: Pointer,
    padded: Pointer,
    memory: Pointer,
    sizes: LargeSizes,
    group: int,
    room: int,
    operation: Operation,
) -> None:
    """Select along the last axis.

    Args:
        source: the rows.
        rows: number of rows.
        target: as many rows of extremes.
        padded: room for a group of padded rows, filled with the identity.
        memory: room for two groups of blocks.
        sizes: sizes of the windows.
        group: rows of a group.
        room: elements that it needs.
        operation: the comparison.
    """
    width, pitch = sizes.width, sizes.pitch
    for first in range(0, rows, group):
        count = min(group, rows - first)
        for number in range(-(-width // LANES)):
            at = min(number * LANES, width - LANES)
            elements, places = ahead(source, first * width + at), ahead(padded, sizes.before + at)
            for row in range(count):
                store_vector(places, row * pitch, load_16(elements, row * width))
        blocks, free, other, size = padded, memory, ahead(memory, room), 1
        while sizes.row_taps > (_GROWTH + (size == 1)) * size:
            length = count * pitch + sizes.before
            _join_all(blocks, free, length, size, 4, 3 * size, operation)
            size *= _GROWTH
            blocks, free, other = free, other, free
        extremes, joined = ahead(target, first * pitch), -(-sizes.row_taps // size)
        length, last = count * pitch, sizes.row_taps - size
        if joined == 2:
            _join_all(blocks, extremes, length, size, 2, last, operation)
        elif joined == 3:
            _join_all(blocks, extremes, length, size, 3, last, operation)
        elif joined == 4:
            _join_all(blocks, extremes, length, size, 4, last, operation)
        else:
            _join_all(blocks, extremes, length, size, 5, last, operation)


@part
def _join_all(
    blocks: Pointer,
    target: Pointer,
    length: int,
    size: int,
    joined: int,
    last: int,
    operation: Operation,
) -> None:
    for at in range(0, length, LANES):
        store_vector(target, at, join(ahead(blocks, at), size, joined, last, operation))


@part
def join(blocks: Pointer, size: int, count: int, last: int, operation: Operation) -> Element:
    """Return the extremes of `count` blocks, `size` apart; the last is `last` from the first."""
    best = load_16(blocks, 0)
    for number in range(1, count - 1):
        best = better(load_16(blocks, number * size), best, operation)
    return better(load_16(blocks, last), best, operation)


@part
def better(value: Element, best: Element, operation: Operation) -> Element:
    """Return, in each lane, a later element if it is selected over the best so far, else that."""
    return pick_lanes(is_better(value, best, operation), value, best)
