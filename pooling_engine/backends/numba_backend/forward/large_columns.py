"""Extremes along columns with large windows and a stride of 1.

The columns are cut into blocks of the window's length. A window is the end of one block and the
beginning of the next, so it takes three comparisons, whatever its length (van Herk, Gil and
Werman). Windows of few taps are compared tap by tap.
"""

from __future__ import annotations

from pooling_engine.backends.numba_backend.forward.large_rows import LANES, better, join
from pooling_engine.backends.numba_backend.language.arguments import LargeSizes
from pooling_engine.backends.numba_backend.language.jit import routine
from pooling_engine.backends.numba_backend.language.pointers import Element, Pointer, ahead
from pooling_engine.backends.numba_backend.language.selection import Operation
from pooling_engine.backends.numba_backend.language.vectors import filled, load_16, store_vector

FEW_TAPS = 5


@routine
def select_few(
    source: Pointer, target: Pointer, outputs: int, sizes: LargeSizes, operation: Operation
) -> None:
    """Select from windows of FEW_TAPS rows, for two rows of outputs at a time.

    Args:
        source: rows of extremes, from the first row of the first window on, with padding.
        target: rows of outputs.
        outputs: number of rows of outputs.
        sizes: sizes of the windows.
        operation: the comparison.
    """
    pitch, out_row = sizes.pitch, sizes.out_row
    for number in range(-(-out_row // LANES)):
        at = min(number * LANES, out_row - LANES)
        rows, results = ahead(source, at), ahead(target, at)
        for output in range(0, outputs - 1, 2):
            taps, place = ahead(rows, output * pitch), ahead(results, output * out_row)
            shared = join(ahead(taps, pitch), pitch, FEW_TAPS - 1, 3 * pitch, operation)
            first, last = load_16(taps, 0), load_16(taps, FEW_TAPS * pitch)
            store_vector(place, 0, better(shared, first, operation))
            store_vector(place, out_row, better(last, shared, operation))
        if outputs % 2:
            taps, place = ahead(rows, (outputs - 1) * pitch), (outputs - 1) * out_row
            store_vector(results, place, join(taps, pitch, FEW_TAPS, 4 * pitch, operation))


@routine
def select_columns(
    source: Pointer,
    rows: int,
    start: int,
    target: Pointer,
    outputs: int,
    suffixes: Pointer,
    sizes: LargeSizes,
    identity: Element,
    operation: Operation,
) -> None:
    """Select from windows of any length.

    Args:
        source: rows of extremes.
        rows: number of rows.
        start: position of the first window, which may begin before the first row.
        target: rows of outputs.
        outputs: number of rows of outputs.
        suffixes: room for two vectors for each tap of a window.
        sizes: sizes of the windows.
        identity: extreme of no elements.
        operation: the comparison.
    """
    pitch, out_row, taps = sizes.pitch, sizes.out_row, sizes.taps
    apart = min(LANES, out_row - LANES)
    # Two vectors at a time: each comparison of a column waits for the one before.
    for at in range(0, out_row, 2 * LANES):
        left = max(0, min(at, out_row - 2 * LANES))
        elements, results = ahead(source, left), ahead(target, left)
        for block in range(start, start + outputs, taps):
            low, high = max(block, 0), min(block + taps, rows)
            place = ahead(elements, (high - 1) * pitch)
            one, two = load_16(place, 0), load_16(place, apart)
            for position in range(high - 1, low - 1, -1):
                place, kept = ahead(elements, position * pitch), (position - low) * 2 * LANES
                one = better(one, load_16(place, 0), operation)
                two = better(two, load_16(place, apart), operation)
                store_vector(suffixes, kept, one)
                store_vector(suffixes, kept + LANES, two)
            one, two = filled(identity, one), filled(identity, two)
            for output in range(block - start, min(outputs, block - start + taps)):
                position = output + start + taps - 1
                if block + taps <= position < rows:
                    place = ahead(elements, position * pitch)
                    one = better(load_16(place, 0), one, operation)
                    two = better(load_16(place, apart), two, operation)
                suffix = ahead(suffixes, (max(output + start, 0) - low) * 2 * LANES)
                place = ahead(results, output * out_row)
                store_vector(place, 0, better(one, load_16(suffix, 0), operation))
                store_vector(place, apart, better(two, load_16(suffix, LANES), operation))
